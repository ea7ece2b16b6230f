"""The weight whose numbers are stored in few bits."""

from __future__ import annotations

from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Activations, Dynamic, Format, Fp8, Integers, Nf4, NoActivations, Static
from jaxlm.layers.contracts import Call, RowKeys
from jaxlm.layers.products import contract, is_transposed, sides, trailing
from jaxlm.layers.projection import Weight
from jaxlm.layers.weights import over_stacked
from jaxlm.parallel.layout import Axes
from jaxlm.quantize import grid, products
from jaxlm.quantize.arrange import (
    WHOLE,
    as_matrix,
    into_out,
    is_grouped,
    is_table,
    placed,
    shift,
    stored_axes,
    width,
)
from jaxlm.quantize.formats import FLOATS, NORMAL_QUANTILES
from jaxlm.quantize.packing import Packed, pack


@struct.dataclass
class Blocks:
    """Scales of scales, `grid.BLOCK` at a time, and the middle one of all; see `grid.Double`."""

    scale: Float[Array, "... block"]
    center: Float[Array, "..."]

    def leaf_axes(self) -> dict[str, Axes]:
        """Whole on every device: there are few, and blocks do not follow outputs."""
        return {"scale": (WHOLE,), "center": ()}


@struct.dataclass
class Quantized:
    """(codes - zero) * scale, as `quantize.grid` says; trained by nobody: no gradient reaches what is stored.

    Codes lie as [*outputs, *inputs], and in groups as [group, *outputs, input of the group]: a product sums over
    their last dimension (`quantize.products`). Neighbors along the last dimension of the outputs share a byte, in
    a table of tokens along its vectors, so that a token's row is cut out (`quantize.arrange`).
    Scales and zeros have the shape of what has one: [group, *outputs], [*outputs] or [].
    """

    codes: Packed
    scale: Float[Array, "..."] | Int[Array, "..."]
    """float32; in 8 bits where `blocks` says what for."""
    zero: Int[Array, "..."] | None
    """int16, in units of 1 / `grid.ZEROS`."""
    blocks: Blocks | None
    activation: Float[Array, "..."] | None
    """The step between levels of what comes in, where that is static; not a number until it is calibrated."""
    bias: Float[Array, "..."] | None
    axes: Axes = struct.field(pytree_node=False)
    inputs: int = struct.field(pytree_node=False)
    inner: tuple[int, ...] = struct.field(pytree_node=False)
    """Sizes of the inputs after the first: heads lie in groups as one dimension with their features."""
    format: Format = struct.field(pytree_node=False)
    activations: Activations = struct.field(pytree_node=False, default=NoActivations())

    @classmethod
    def of(cls, weight: Weight, format: Format, activations: Activations = NoActivations()) -> Quantized:
        """A weight rounded to the nearest. Raises UsageError for groups that do not divide the inputs."""
        kernel = weight.dense().astype(jnp.float32)
        stacked = kernel.ndim - len(weight.axes)

        def rounded(kernel: Array) -> tuple[Array, grid.Scales]:
            matrix = as_matrix(kernel, weight.axes, weight.inputs)
            scales = grid.fit(matrix, format)
            return grid.codes(matrix, format, scales), scales

        return cls.from_codes(weight, *over_stacked(rounded, stacked)(kernel), format, activations)

    @classmethod
    def from_codes(
        cls,
        weight: Weight,
        codes: Int[Array, "*stacked inputs outputs"],
        scales: grid.Scales,
        format: Format,
        activations: Activations = NoActivations(),
    ) -> Quantized:
        """Chosen codes in the place of a weight's numbers; shapes, axes and bias are the weight's.

        `codes` and `scales` are as `quantize.grid` has them, dimensions that are stacked in front. Raises
        UsageError for Nf4's doubly rounded scales that are not from `grid.fit`.
        """
        shape, axes, inputs = jax.eval_shape(weight.dense).shape, weight.axes, weight.inputs
        stacked = len(shape) - len(axes)
        front, (into, out) = shape[:stacked], into_out(shape[stacked:], axes, inputs)
        signed = jnp.swapaxes(codes - shift(format), -1, -2)
        if is_grouped(format):
            signed = jnp.moveaxis(signed.reshape(*front, *out, scales.scale.shape[-2], -1), -2, stacked)
        else:
            signed = signed.reshape(*front, *out, *into)
        together = -1 if is_table(axes) else -2 if is_grouped(format) else -1 - len(into)
        scale, zero, blocks = scales.scale.astype(jnp.float32), scales.zero, None
        if zero is not None:
            zero = jnp.round((zero - shift(format)) * grid.ZEROS).astype(jnp.int16)
        if isinstance(format, Nf4) and format.double:
            if scales.double is None:
                raise UsageError("Nf4(double=True): scales that were not fitted have no form in 8 bits")
            scale, blocks = scales.double.codes.astype(jnp.int8), Blocks(scales.double.scale, scales.double.center)
        return cls(
            codes=pack(signed, width(format), stored_axes(axes, inputs, format)["codes"], together),
            scale=placed(scale, shape, axes, inputs, format),
            zero=None if zero is None else placed(zero, shape, axes, inputs, format),
            blocks=blocks,
            activation=jnp.full(front, jnp.nan) if isinstance(activations, Static) else None,
            bias=weight.bias,
            axes=axes,
            inputs=inputs,
            inner=into[1:],
            format=format,
            activations=activations,
        )

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        own = stored_axes(self.axes, self.inputs, self.format)
        return {name: own[name] for name in ("scale", "zero", "activation", "bias")}

    def dense(self) -> Float[Array, "..."]:
        """The rounded matrix in float32: what `grid.values` makes of the same codes.

        Raises UsageError within `Layout.spmd`, where parts of what is stored are not parts of the matrix.
        """
        if not is_table(self.axes) or is_grouped(self.format):
            refuse_parts()
        return over_stacked(Quantized._dense, self.codes.codes().ndim - len(self.codes.axes))(self)

    def rows(self, ids: Int[Array, "..."]) -> Float[Array, "... embed"]:
        """Rows of `dense()`, no others made."""
        if not is_table(self.axes):
            return jnp.take(self.dense(), ids, axis=0)
        flat, whole = ids.reshape(-1), self.replace(scale=self._scale(), blocks=None)

        def some(leaf: Array) -> Array:
            return jnp.take(leaf, flat, axis=1 if is_grouped(self.format) else 0) if leaf.ndim else leaf

        zero = None if self.zero is None else some(self.zero)
        few = whole.replace(codes=jax.tree.map(some, self.codes), scale=some(whole.scale), zero=zero)
        return few._dense().reshape(*ids.shape, -1)

    def dot(
        self,
        x: Float[Array, "..."],
        spec: str,
        call: Call,
        *,
        key: RowKeys | None = None,
        adapters: Int[Array, "row"] | None = None,
    ) -> Float[Array, "..."]:
        """The product with the rounded matrix, of what comes in rounded too where `activations` say so.

        Raises UsageError for rounded activations across scales: the transpose of what is no table of tokens.
        """
        contracted, outputs = sides(spec, self.axes)
        used = self._gathered(call)
        if is_transposed(spec) == is_table(self.axes):
            y = used._product(x, spec, contracted, call)
        elif isinstance(self.activations, NoActivations):
            y = contract(x, used._dense().astype(x.dtype), spec)
        else:
            raise UsageError("activations are rounded for products with a weight, not with its transpose")
        return call.layout.reduce(y, contracted, y.ndim - len(outputs) - 1)

    def _product(self, x: Array, spec: str, contracted: Axes, call: Call) -> Array:
        """On a device's own shards, not summed over others'."""
        batch = x.shape[: x.ndim - len(contracted)]
        rows = x.reshape(prod(batch), -1)
        step = self._step(rows, contracted, call)
        few = rows.shape[0] * products.PIECES[x.dtype.itemsize] <= products.MOST_ROWS
        fast = step is not None or (few and call.layout.platform == "cpu")
        if fast and isinstance(self.format, Integers) and rows.shape[1] <= products.MOST_INPUTS:
            codes, scale, zero = self._matrices()
            y = products.product(rows, codes, scale, zero, step, self._bits())
            return y.astype(x.dtype).reshape(*batch, *self._outputs())
        if step is not None:
            x = products.straight_through(rows, step, self._bits()).reshape(x.shape)
        if self.zero is not None or is_grouped(self.format):
            return contract(x, self._dense().astype(x.dtype), spec)
        # A scale for all inputs of an output is the product's, not the matrix's.
        outward = spec if is_table(self.axes) else _outward(spec, self.inputs)
        y = contract(x, self._numbers().astype(x.dtype), outward).astype(jnp.float32)
        return (y * trailing(self.scale, y)).astype(x.dtype)

    def _step(self, rows: Array, contracted: Axes, call: Call) -> Array | None:
        """The distance of the levels of what comes in, [row or 1, 1]; None where it is not rounded."""
        match self.activations:
            case NoActivations():
                return None
            case Static():
                return self.activation[None, None]
            case Dynamic(bits=bits):
                return products.token_steps(rows, bits, contracted, call)

    def _bits(self) -> int:
        return 8 if isinstance(self.activations, NoActivations) else self.activations.bits

    def _gathered(self, call: Call) -> Quantized:
        """Whole but for what devices hold parts of in use, scales in float32."""
        layout, axes = call.layout, stored_axes(self.axes, self.inputs, self.format)

        def whole(leaf: Array, name: str) -> Array:
            return layout.gather(jax.lax.stop_gradient(leaf), axes[name])

        codes = jax.tree.map(lambda leaf: whole(leaf, "codes"), self.codes)
        scale = whole(self.scale, "scale")
        if self.blocks is not None:
            shape = [size * layout.parts(axis) for size, axis in zip(scale.shape, axes["scale"], strict=True)]
            factors = grid.spread(self.blocks.scale, tuple(shape))
            for dim, axis in enumerate(axes["scale"]):
                factors = layout.own(factors, axis, dim) if layout.parts(axis) > 1 else factors
            scale = grid.undoubled(scale, factors, self.blocks.center)
        zero = None if self.zero is None else whole(self.zero, "zero")
        return self.replace(codes=codes, scale=scale, zero=zero, blocks=None)

    def _outputs(self) -> tuple[int, ...]:
        shape = self.codes.codes().shape
        if is_grouped(self.format):
            return shape[1:-1]
        return shape[: len(into_out(self.axes, self.axes, self.inputs)[1])]

    def _matrices(self) -> tuple[Array, Array, Array | None]:
        """Codes [group, output, input of the group], scale and zero [group, output] or of size 1; of integers."""
        codes, scale, zero = self.codes.codes(), self.scale, self.zero
        count = prod(self._outputs())
        codes = (
            codes.reshape(-1, count, codes.shape[-1]) if is_grouped(self.format) else codes.reshape(1, count, -1)
        )
        flat = (-1, count) if scale.ndim else (1, 1)
        return codes, scale.reshape(flat), None if zero is None else _zero(zero).reshape(flat)

    def _numbers(self) -> Float[Array, "..."]:
        """What scales multiply, in the order of codes; not of a stack."""
        codes, zero = self.codes.codes(), self.zero
        match self.format:
            case Nf4():
                return jnp.asarray(NORMAL_QUANTILES)[codes.astype(jnp.int32) + shift(self.format)]
            case Fp8(kind=kind):
                bits = (codes.astype(jnp.int32) + shift(self.format)).astype(jnp.uint8)
                return jax.lax.bitcast_convert_type(bits, FLOATS[kind]).astype(jnp.float32)
        numbers = codes.astype(jnp.float32)
        return numbers if zero is None else numbers - _behind(_zero(zero), numbers)

    def _scale(self) -> Float[Array, "..."]:
        """In float32, whole."""
        if self.blocks is None:
            return self.scale
        return grid.undoubled(self.scale, grid.spread(self.blocks.scale, self.scale.shape), self.blocks.center)

    def _dense(self) -> Float[Array, "*inputs *outputs"]:
        """Not of a stack."""
        numbers = self._numbers()
        numbers = numbers * _behind(self._scale(), numbers)
        if is_grouped(self.format):
            numbers = jnp.moveaxis(numbers, -1, 1).reshape(-1, *self.inner, *self._outputs())
            return numbers.T if is_table(self.axes) else numbers
        if is_table(self.axes):
            return numbers
        outputs = tuple(range(numbers.ndim - self.inputs))
        return jnp.moveaxis(numbers, outputs, tuple(range(-len(outputs), 0)))


def _zero(stored: Int[Array, "..."]) -> Float[Array, "..."]:
    return stored.astype(jnp.float32) * np.float32(1 / grid.ZEROS)


def refuse_parts() -> None:
    """Raises UsageError within `Layout.spmd` on several devices."""
    mesh = jax.sharding.get_abstract_mesh()
    if any(mesh.shape[axis] > 1 for axis in mesh.manual_axes):
        raise UsageError(
            "a rounded weight has no dense form where devices hold parts of it: leave embeddings and what DoRA "
            "adapts out of the rules, or use one device"
        )


def _behind(vector: Array, numbers: Array) -> Array:
    """With trailing dimensions of size one."""
    return vector.reshape(vector.shape + (1,) * (numbers.ndim - vector.ndim))


def _outward(spec: str, inputs: int) -> str:
    """The product with the same kernel, its outputs first: "rpe,ehd->rphd" is "rpe,hde->rphd"."""
    operands, result = spec.replace(" ", "").split("->")
    left, right = operands.split(",")
    return f"{left},{right[inputs:]}{right[:inputs]}->{result}"
