"""Norms of queries and keys, before positions turn them."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call
from jaxlm.layers.norms import Norm, initial_norm
from jaxlm.layers.products import trailing
from jaxlm.parallel.layout import Axes

Heads = Float[Array, "row pos heads head"]


@struct.dataclass
class Joint:
    """x / rms(x) * scale over all heads of a token (OLMo 2, arXiv:2501.00656, section 3.1)."""

    scale: Float[Array, "heads head"]
    axes: Axes = struct.field(pytree_node=False)
    config: config.RMSNorm = struct.field(pytree_node=False)

    def __call__(self, x: Heads, call: Call) -> Heads:
        """Normalize; a device's own heads are normalized with all others'. The result has x's dtype."""
        x32 = x.astype(jnp.float32)
        total = call.layout.sum(jnp.sum(jnp.square(x32), axis=(-2, -1), keepdims=True), self.axes[0])
        mean = total / (x.shape[-2] * x.shape[-1] * call.layout.parts(self.axes[0]))
        scale = trailing(call.layout.gather(self.scale, self.axes), x32)
        return (x32 * lax.rsqrt(mean + self.config.epsilon) * scale).astype(x.dtype)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"scale": self.axes}


HeadNorm = Norm | Joint
"""A norm of each head by itself has one scale for all heads: it is whole on every device."""


def normed(norm: HeadNorm | None, x: Heads, call: Call) -> Heads:
    """Queries or keys, normalized if there is a norm."""
    match norm:
        case None:
            return x
        case Joint():
            return norm(x, call)
        case _:
            return norm(x)


def initial_head_norm(
    kind: config.block.QkNorm, norm: config.block.Norm, shape: tuple[int, int], axes: Axes, dtype: str
) -> HeadNorm | None:
    """A norm that only normalizes heads of this shape, or None. Raises UsageError for one that is not defined."""
    match kind:
        case config.NoNorm():
            return None
        case config.EachHead():
            return initial_norm(norm, shape[-1], dtype)
        case config.AllHeads():
            if not isinstance(norm, config.RMSNorm):
                raise UsageError(f"attention.qk_norm=all_heads: norm={type(norm).__name__} is not; choose rms_norm")
            return Joint(jnp.ones(shape, dtype), axes, norm)
