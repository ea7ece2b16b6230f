"""Training that knows of the rounding: forward with rounded weights, backward as if they were not."""

from __future__ import annotations

from math import prod
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Aware, Dynamic, Format, Lsq, NoActivations, Rule, Static, StraightThrough
from jaxlm.layers.axes import Named, logical_axes
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.products import contract, is_transposed, sides
from jaxlm.layers.projection import Weight
from jaxlm.layers.weights import OfBase, map_weights, over_stacked
from jaxlm.parallel.layout import Axes
from jaxlm.quantize import grid, lsq, products
from jaxlm.quantize.arrange import as_matrix, is_grouped, is_table, of_matrix, placed, stored_axes
from jaxlm.quantize.rules import ruled
from jaxlm.quantize.weight import Quantized, refuse_parts

Tree = TypeVar("Tree")


def aware(model: Tree, quantization: Aware) -> Tree:
    """The model whose weights are rounded in every product and trained as they are.

    Raises UsageError as `rules.ruled` and `lsq.initial_scale` do, and for static activations.
    """

    def one(_: str, weight: Weight, rule: Rule) -> Weight:
        if isinstance(rule.activations, Static):
            raise UsageError("static activations are found by a calibration, not in training: use dynamic")
        return FakeQuant.of(weight, rule.format, rule.activations, quantization.scales)

    return ruled(one, model, quantization)


def stored(model: Tree) -> Tree:
    """What `aware` trained, as numbers in few bits: the same numbers, bit for bit."""
    return map_weights(lambda _, weight: weight.stored() if isinstance(weight, FakeQuant) else weight, model)


@struct.dataclass
class FakeQuant(OfBase):
    """A weight, rounded when it is used: adapters within it are added before."""

    base: Weight
    scale: Float[Array, "..."] | None
    """Learned steps, in the shape of what has one (`Quantized`); None where they follow the weight."""
    format: Format = struct.field(pytree_node=False)
    activations: NoActivations | Dynamic = struct.field(pytree_node=False)

    @classmethod
    def of(
        cls, weight: Weight, format: Format, activations: NoActivations | Dynamic, scales: StraightThrough | Lsq
    ) -> FakeQuant:
        """A weight to be trained. Raises UsageError as `lsq.initial_scale` does."""
        match scales:
            case StraightThrough():
                return cls(weight, None, format, activations)
            case Lsq():
                pass
        kernel = weight.dense().astype(jnp.float32)
        stacked = kernel.ndim - len(weight.axes)

        def initial(kernel: Array) -> Array:
            return lsq.initial_scale(as_matrix(kernel, weight.axes, weight.inputs), format)

        found = over_stacked(initial, stacked)(kernel)
        scale = placed(found, kernel.shape, weight.axes, weight.inputs, format)
        return cls(weight, scale, format, activations)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of its own leaf."""
        return {"scale": stored_axes(self.axes, self.inputs, self.format)["scale"]}

    def dense(self) -> Float[Array, "..."]:
        """The rounded matrix in float32. Raises UsageError as `Quantized.dense` does."""
        refuse_parts()
        kernel = self.base.dense()

        def one(kernel: Array, scale: Array | None) -> Array:
            return self._rounded(kernel, scale, None)

        return over_stacked(one, kernel.ndim - len(self.axes))(kernel, self.scale)

    def dot(
        self,
        x: Float[Array, "..."],
        spec: str,
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Int[Array, "row"] | None = None,
    ) -> Float[Array, "..."]:
        """The product with the rounded matrix, of what comes in rounded token by token if the config says so.

        Raises UsageError for rows that choose among adapters, and for rounded activations with the transpose.
        """
        if adapters is not None:
            raise UsageError("rows cannot choose among adapters of a weight that is rounded with them")
        contracted, outputs = sides(spec, self.axes)
        if isinstance(self.activations, Dynamic):
            if is_transposed(spec) != is_table(self.axes):
                raise UsageError("activations are rounded for products with a weight, not with its transpose")
            rows = x.reshape(prod(x.shape[: x.ndim - len(contracted)]), -1)
            step = products.token_steps(rows, self.activations.bits, contracted, call)
            x = products.straight_through(rows, step, self.activations.bits).reshape(x.shape)

        base, scale = self._whole(call)
        kernel = self._rounded(base.dense(), scale, call)
        y = contract(x, kernel.astype(x.dtype), spec)
        return call.layout.reduce(y, contracted, y.ndim - len(outputs) - 1)

    def stored(self) -> Quantized:
        """The numbers that products are with, in few bits."""
        if self.scale is None:
            return Quantized.of(self.base, self.format, self.activations)
        kernel = self.base.dense().astype(jnp.float32)

        def one(kernel: Array, scale: Array) -> tuple[Array, grid.Scales]:
            matrix = as_matrix(kernel, self.axes, self.inputs)
            scales = grid.Scales(lsq.positive(self._by_group(scale, matrix)))
            return grid.codes(matrix, self.format, scales), scales

        found = over_stacked(one, kernel.ndim - len(self.axes))(kernel, self.scale)
        return Quantized.from_codes(self.base, *found, self.format, self.activations)

    def _whole(self, call: Call) -> tuple[Weight, Array | None]:
        """The base and the steps, whole but for what devices hold parts of in use."""

        def whole(named: Named, leaf: Array) -> Array:
            return call.layout.gather(leaf, named.axes)

        base = jax.tree.map(whole, logical_axes(self.base), self.base)
        return base, None if self.scale is None else call.layout.gather(self.scale, self.leaf_axes()["scale"])

    def _rounded(self, kernel: Float[Array, "..."], scale: Array | None, call: Call | None) -> Float[Array, "..."]:
        """The rounded matrix; with `call`, of a device's own part."""
        matrix = as_matrix(kernel.astype(jnp.float32), self.axes, self.inputs)
        if scale is None:
            low, high = grid.ranges(matrix, self.format)
            for axis in self._spread():
                low = jnp.min(low[None] if call is None else call.layout.collect(low[None], axis, 0), axis=0)
                high = jnp.max(high[None] if call is None else call.layout.collect(high[None], axis, 0), axis=0)
            rounded = lsq.straight_through(matrix, self.format, grid.reaching(low, high, self.format))
            return of_matrix(rounded, kernel.shape, self.axes)
        steps = self._by_group(scale, matrix)
        sharing = matrix.size // steps.size
        for axis in self._spread():
            sharing *= 1 if call is None else call.layout.parts(axis)
        return of_matrix(lsq.learned(matrix, self.format, steps, sharing), kernel.shape, self.axes)

    def _spread(self) -> Axes:
        """Axes of the numbers that share a scale, of which devices may have parts."""
        if is_grouped(self.format):
            return ()
        return (
            self.axes if not stored_axes(self.axes, self.inputs, self.format)["scale"] else self.axes[: self.inputs]
        )

    def _by_group(self, scale: Array, matrix: Array) -> Array:
        """[groups, outputs], or 1 for both."""
        return scale.reshape(1, 1) if scale.ndim == 0 else scale.reshape(-1, matrix.shape[1])
