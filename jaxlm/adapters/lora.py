"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Key

from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.products import is_transposed
from jaxlm.layers.projection import Weight, product
from jaxlm.layers.random import site
from jaxlm.layers.weights import in_blocks, map_weights
from jaxlm.parallel.layout import Axes

Tree = TypeVar("Tree")


@struct.dataclass
class LoRA:
    """W + scale * a b, with `a` from the inputs to a small rank and `b` from there to the outputs (section 4.1)."""

    base: Weight
    a: Float[Array, "..."]
    b: Float[Array, "..."]
    scale: float = struct.field(pytree_node=False)

    @property
    def axes(self) -> Axes:
        """The base's."""
        return self.base.axes

    @property
    def inputs(self) -> int:
        """The base's."""
        return self.base.inputs

    @property
    def bias(self) -> Float[Array, "..."] | None:
        """The base's."""
        return self.base.bias

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
        if is_transposed(spec):
            raise UsageError(
                "LoRA does not take the product with the transpose: leave a tied embedding out of `where`"
            )
        if adapters is not None:
            raise UsageError("this weight holds one adapter: rows cannot choose among several")
        left, right = _split(spec, self.inputs)
        axes = self.leaf_axes()
        low = product(x, self.a, axes["a"], left, call)
        return self.base.dot(x, spec, call, key=key) + self.scale * product(low, self.b, axes["b"], right, call)

    def dense(self) -> Float[Array, "..."]:
        """The merged matrix."""
        stacked = self.a.ndim - self.inputs - 1
        product = lambda a, b: jnp.tensordot(a, b, axes=1)  # noqa: E731
        for _ in range(stacked):
            product = jax.vmap(product)
        kernel = self.base.dense()
        return (kernel + self.scale * product(self.a, self.b)).astype(kernel.dtype)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"a": (*self.axes[: self.inputs], "rank"), "b": ("rank", *self.axes[self.inputs :])}


def _split(spec: str, inputs: int) -> tuple[str, str]:
    """The einsum through the rank: "rpe,ehd->rphd" is "rpe,eZ->rpZ" and "rpZ,Zhd->rphd"."""
    operands, result = spec.split("->")
    left, kernel = operands.split(",")
    batch = left[: len(left) - inputs]
    return f"{left},{kernel[:inputs]}Z->{batch}Z", f"{batch}Z,Z{kernel[inputs:]}->{result}"


def lora(
    model: Tree,
    key: Key[Array, ""],
    *,
    rank: int = 8,
    alpha: float = 16.0,
    where: Callable[[str], bool] = in_blocks,
) -> Tree:
    """The model with adapted weights; `b` starts at zero, so that it computes the same. Scale is alpha / rank."""

    def adapt(name: str, weight: Weight) -> Weight:
        if not where(name):
            return weight
        kernel = jax.eval_shape(weight.dense)
        stacked = kernel.shape[: len(kernel.shape) - len(weight.axes)]
        inputs, outputs = _sides(kernel.shape, len(stacked), weight.inputs)
        draw = jax.random.fold_in(key, site(name))
        a = jax.random.normal(draw, (*stacked, *inputs, rank), kernel.dtype) / sqrt(prod(inputs))
        return LoRA(weight, a, jnp.zeros((*stacked, rank, *outputs), kernel.dtype), alpha / rank)

    return map_weights(adapt, model)


def _sides(shape: tuple[int, ...], stacked: int, inputs: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return shape[stacked : stacked + inputs], shape[stacked + inputs :]


def is_adapter(name: str, leaf: object) -> bool:
    """Whether a leaf belongs to an adapter: what `partition` trains."""
    return name.rsplit(".", 1)[-1] in ("a", "b")
