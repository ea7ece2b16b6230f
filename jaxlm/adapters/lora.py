"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685), scaled by rank or by its root (arXiv:2312.03732)."""

from __future__ import annotations

from math import sqrt

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Key

from jaxlm import config
from jaxlm.adapters.over import Over, Shape, check, low_rank
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.projection import Weight, product
from jaxlm.layers.random import at, dropout_of_inputs
from jaxlm.layers.weights import over_stacked
from jaxlm.parallel.layout import Axes


@struct.dataclass
class LoRA(Over):
    """W + scale * a b, with `a` from the inputs to a small rank and `b` from there to the outputs (section 4.1)."""

    base: Weight
    a: Float[Array, "..."]
    b: Float[Array, "..."]
    scale: float = struct.field(pytree_node=False)
    dropout: float = struct.field(pytree_node=False, default=0.0)
    site: str = struct.field(pytree_node=False, default="")
    """The weight's name: what `dropout` draws is keyed by it."""

    def dot(
        self,
        x: Float[Array, "..."],
        spec: str,
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Int[Array, "row"] | None = None,
    ) -> Float[Array, "..."]:
        """The base's product plus the low-rank one. Raises UsageError for what one low-rank pair cannot do."""
        check("LoRA", spec, adapters)
        return self.base.dot(x, spec, call, key=key) + self.added(x, spec, call, key)

    def added(self, x: Float[Array, "..."], spec: str, call: Call, key: RowKeys | None) -> Float[Array, "..."]:
        """scale * x a b, of an x of which some features are dropped if there are keys."""
        x = dropout_of_inputs(x, self.dropout, at(key, self.site), self.axes[: self.inputs], call.layout)
        left, right = low_rank(spec, self.inputs)
        axes = self.leaf_axes()
        return self.scale * product(product(x, self.a, axes["a"], left, call), self.b, axes["b"], right, call)

    def dense(self) -> Float[Array, "..."]:
        """The merged matrix: summed in float32, then in the base's format."""
        kernel = self.base.dense()
        return (kernel.astype(jnp.float32) + self.scale * outer(self.a, self.b, self.inputs)).astype(kernel.dtype)

    def neutral(self) -> LoRA:
        """The same with an adapter that changes nothing."""
        return self.replace(a=jnp.zeros_like(self.a), b=jnp.zeros_like(self.b))

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"a": (*self.axes[: self.inputs], "rank"), "b": ("rank", *self.axes[self.inputs :])}


def outer(a: Float[Array, "..."], b: Float[Array, "..."], inputs: int) -> Float[Array, "..."]:
    """a b in float32, of layers by themselves and of stacked ones; `a` has so many dimensions of inputs."""

    def multiply(a: Array, b: Array) -> Array:
        return jnp.tensordot(a, b, axes=1)

    multiply = over_stacked(multiply, a.ndim - inputs - 1)
    return multiply(a.astype(jnp.float32), b.astype(jnp.float32))


def scale_of(kind: config.Lora | config.Dora) -> float:
    """What the low-rank product is multiplied by."""
    return kind.alpha / (sqrt(kind.rank) if kind.scaling == "root" else kind.rank)


def pair(shape: Shape, rank: int, key: Key[Array, ""]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """(a, b): uniform numbers within 1 / sqrt(inputs), as PEFT draws them, and zeros."""
    bound = shape.sides[0] ** -0.5
    a = jax.random.uniform(key, (*shape.stacked, *shape.inputs, rank), jnp.float32, -bound, bound)
    return a.astype(shape.dtype), jnp.zeros((*shape.stacked, rank, *shape.outputs), shape.dtype)


def initial_lora(weight: Weight, kind: config.Lora, key: Key[Array, ""], name: str) -> LoRA:
    """Computes what the weight computes, since b is zero."""
    return LoRA(weight, *pair(Shape(weight), kind.rank, key), scale_of(kind), kind.dropout, name)
