"""Weights rounded to eight bits, one scale for each output (dynamic, symmetric)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.products import is_transposed, trailing
from jaxlm.layers.projection import Weight, product
from jaxlm.layers.weights import in_blocks, map_weights
from jaxlm.parallel.layout import Axes

Tree = TypeVar("Tree")


@struct.dataclass
class Int8:
    """values * scale, with |values| <= 127 and one float32 scale an output."""

    values: Int[Array, "..."]
    scale: Float[Array, "..."]
    bias: Float[Array, "..."] | None
    axes: Axes = struct.field(pytree_node=False)
    inputs: int = struct.field(pytree_node=False)

    def dot(
        self,
        x: Float[Array, "..."],
        spec: str,
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Int[Array, "row"] | None = None,
    ) -> Float[Array, "..."]:
        """The product with the integers, then the outputs' scales. Raises UsageError for a transposed product."""
        if is_transposed(spec):
            raise UsageError(
                "int8 scales are for outputs, not for the transpose: leave a tied embedding out of `where`"
            )
        y = product(x, self.values, self.axes, spec, call)
        return y * trailing(call.layout.gather(self.scale, self.axes[self.inputs :]), y)

    def dense(self) -> Float[Array, "..."]:
        """The rounded matrix in float32."""
        stacked = self.values.ndim - len(self.axes)
        inputs = tuple(range(stacked, stacked + self.inputs))
        return self.values.astype(jnp.float32) * jnp.expand_dims(self.scale, inputs)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        outputs = self.axes[self.inputs :]
        return {"values": self.axes, "scale": outputs, "bias": outputs}


def quantized(weight: Weight) -> Int8:
    """Round to the nearest of 255 levels, the largest of each output at 127."""
    kernel = weight.dense().astype(jnp.float32)
    stacked = kernel.ndim - len(weight.axes)
    inputs = tuple(range(stacked, stacked + weight.inputs))
    scale = jnp.maximum(jnp.max(jnp.abs(kernel), axis=inputs), 1e-30) / 127.0
    values = jnp.round(kernel / jnp.expand_dims(scale, inputs)).astype(jnp.int8)
    return Int8(values, scale, weight.bias, weight.axes, weight.inputs)


def int8(model: Tree, where: Callable[[str], bool] = in_blocks) -> Tree:
    """The model with the chosen weights rounded; the blocks' by default."""
    return map_weights(lambda name, weight: quantized(weight) if where(name) else weight, model)
