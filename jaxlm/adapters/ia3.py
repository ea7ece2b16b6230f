"""A factor for each of some features (Liu et al. 2022, arXiv:2205.05638)."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm.adapters.over import Over, Shape, check, spread
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.products import trailing
from jaxlm.layers.projection import Weight
from jaxlm.parallel.layout import Axes


@struct.dataclass
class IA3(Over):
    """factor * (x W + bias), or (factor * x) W + bias (section 3.3)."""

    base: Weight
    factor: Float[Array, "..."]
    of: Literal["outputs", "inputs"] = struct.field(pytree_node=False)

    @property
    def bias(self) -> Float[Array, "..."] | None:
        """The base's, multiplied as the outputs are."""
        bias = self.base.bias
        return bias if bias is None or self.of == "inputs" else (self.factor * bias).astype(bias.dtype)

    def dot(
        self,
        x: Float[Array, "..."],
        spec: str,
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Int[Array, "row"] | None = None,
    ) -> Float[Array, "..."]:
        """The base's product of, or times, the factors. Raises UsageError as `LoRA` does."""
        check("IA3", spec, adapters)
        factor = call.layout.gather(self.factor, self.leaf_axes()["factor"])
        if self.of == "inputs":
            return self.base.dot(x * trailing(factor, x), spec, call, key=key)
        y = self.base.dot(x, spec, call, key=key)
        return y * trailing(factor, y)

    def dense(self) -> Float[Array, "..."]:
        """The merged matrix."""
        kernel = self.base.dense()
        if self.of == "outputs":
            return (kernel * spread(self.factor, self.axes, self.inputs)).astype(kernel.dtype)
        outputs = tuple(range(-(len(self.axes) - self.inputs), 0))
        return (kernel * jnp.expand_dims(self.factor, outputs)).astype(kernel.dtype)

    def neutral(self) -> IA3:
        """The same with an adapter that changes nothing."""
        return self.replace(factor=jnp.ones_like(self.factor))

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        cut = self.inputs
        return {"factor": self.axes[:cut] if self.of == "inputs" else self.axes[cut:]}


def initial_ia3(weight: Weight, of: Literal["outputs", "inputs"]) -> IA3:
    """Computes what the weight computes: factors are ones."""
    shape = Shape(weight)
    side = shape.inputs if of == "inputs" else shape.outputs
    return IA3(weight, jnp.ones((*shape.stacked, *side), shape.dtype), of)
