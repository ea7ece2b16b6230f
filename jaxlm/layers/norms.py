"""Normalization over the features, computed in float32."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.layers.products import trailing
from jaxlm.parallel.layout import Axes

FEATURES = ("features",)
"""Vectors are replicated: sharding them saves nothing and costs a gather."""


@struct.dataclass
class RMSNorm:
    """x / rms(x) * scale (arXiv:1910.07467, equation 4)."""

    scale: Float[Array, "embed"]
    config: config.RMSNorm = struct.field(pytree_node=False)

    def __call__(self, x: Float[Array, "... embed"]) -> Float[Array, "... embed"]:
        """Normalize; the result has x's dtype."""
        x32 = x.astype(jnp.float32)
        inverse = lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.config.epsilon)
        return (x32 * inverse * trailing(self.scale, x32)).astype(x.dtype)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"scale": FEATURES}


@struct.dataclass
class ZeroCentered:
    """x / rms(x) * (1 + scale)."""

    scale: Float[Array, "embed"]
    config: config.ZeroCentered = struct.field(pytree_node=False)

    def __call__(self, x: Float[Array, "... embed"]) -> Float[Array, "... embed"]:
        """Normalize; the result has x's dtype, in which 1 + scale is not rounded."""
        x32 = x.astype(jnp.float32)
        inverse = lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.config.epsilon)
        return (x32 * inverse * (1 + trailing(self.scale, x32))).astype(x.dtype)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"scale": FEATURES}


@struct.dataclass
class LayerNorm:
    """(x - mean(x)) / std(x) * scale + bias (arXiv:1607.06450, equation 4)."""

    scale: Float[Array, "embed"]
    bias: Float[Array, "embed"]
    config: config.LayerNorm = struct.field(pytree_node=False)

    def __call__(self, x: Float[Array, "... embed"]) -> Float[Array, "... embed"]:
        """Normalize; the result has x's dtype."""
        x32 = x.astype(jnp.float32)
        centered = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        inverse = lax.rsqrt(jnp.mean(jnp.square(centered), axis=-1, keepdims=True) + self.config.epsilon)
        return (centered * inverse * trailing(self.scale, x32) + trailing(self.bias, x32)).astype(x.dtype)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"scale": FEATURES, "bias": FEATURES}


@struct.dataclass
class Unbiased:
    """(x - mean(x)) / std(x) * scale."""

    scale: Float[Array, "embed"]
    config: config.Unbiased = struct.field(pytree_node=False)

    def __call__(self, x: Float[Array, "... embed"]) -> Float[Array, "... embed"]:
        """Normalize; the result has x's dtype."""
        x32 = x.astype(jnp.float32)
        centered = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        inverse = lax.rsqrt(jnp.mean(jnp.square(centered), axis=-1, keepdims=True) + self.config.epsilon)
        return (centered * inverse * trailing(self.scale, x32)).astype(x.dtype)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"scale": FEATURES}


Norm = RMSNorm | LayerNorm | ZeroCentered | Unbiased


def initial_norm(kind: config.block.Norm, features: int, dtype: str) -> Norm:
    """A norm that only normalizes: it multiplies by one and adds zero."""
    match kind:
        case config.RMSNorm():
            return RMSNorm(jnp.ones(features, dtype), kind)
        case config.ZeroCentered():
            return ZeroCentered(jnp.zeros(features, dtype), kind)
        case config.Unbiased():
            return Unbiased(jnp.ones(features, dtype), kind)
        case config.LayerNorm():
            return LayerNorm(jnp.ones(features, dtype), jnp.zeros(features, dtype), kind)
