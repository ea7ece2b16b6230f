"""How the dimensions of a weight lie: as a matrix for the grid, and as codes are stored.

A table of token vectors, [vocab, embed], is looked up by rows and multiplied by its transpose: there each token is
an output, and its vector what shares scales.
"""

from __future__ import annotations

from math import prod
from typing import TypeVar

from jaxtyping import Array, Float

from jaxlm.config.quantization import Format, Fp8, Integers, Nf4
from jaxlm.parallel.layout import Axes

Dims = TypeVar("Dims", tuple[str, ...], tuple[int, ...])

WHOLE = "features"
"""The logical axis of dimensions that no device has a part of."""


def is_table(axes: Axes) -> bool:
    """Whether a weight is rounded by rows."""
    return axes[0] == "vocab"


def into_out(dims: Dims, axes: Axes, inputs: int) -> tuple[Dims, Dims]:
    """Of dimensions of a weight with these axes, those that share scales and those that do not."""
    return (dims[1:], dims[:1]) if is_table(axes) else (dims[:inputs], dims[inputs:])


def as_matrix(kernel: Float[Array, "..."], axes: Axes, inputs: int) -> Float[Array, "inputs outputs"]:
    """A weight as `quantize.grid` takes it."""
    if is_table(axes):
        return kernel.reshape(kernel.shape[0], -1).T
    return kernel.reshape(prod(kernel.shape[:inputs]), -1)


def of_matrix(matrix: Float[Array, "inputs outputs"], shape: tuple[int, ...], axes: Axes) -> Float[Array, "..."]:
    """Back in the shape of the weight."""
    return (matrix.T if is_table(axes) else matrix).reshape(shape)


def is_grouped(format: Format) -> bool:
    """Whether inputs have several scales."""
    match format:
        case Integers(group=group) | Nf4(group=group):
            return group > 0
        case Fp8():
            return False


def width(format: Format) -> int:
    """Bits of a code."""
    match format:
        case Integers(bits=bits):
            return bits
        case Nf4():
            return 4
        case Fp8():
            return 8


def shift(format: Format) -> int:
    """What is taken from codes that begin at 0 to store them with a sign."""
    return 0 if isinstance(format, Integers) and format.symmetric else 2 ** (width(format) - 1)


def stored_axes(axes: Axes, inputs: int, format: Format) -> dict[str, Axes]:
    """Logical axes of each leaf. Of groups, devices have some where they have some of the inputs.

    No device has a part of a token's features: groups of them are whole, and each is stored in parts.
    """
    into, out = into_out(axes, axes, inputs)
    each = {"activation": (), "bias": axes[inputs:]}
    if is_grouped(format):
        group, size = (WHOLE, into[0]) if into[0] == "embed" else (into[0], WHOLE)
        return {"codes": (group, *out, size), "scale": (group, *out), "zero": (group, *out), **each}
    scale = () if isinstance(format, Integers) and format.group == -1 else out
    return {"codes": (*out, *into), "scale": scale, "zero": scale, **each}


def placed(leaf: Array, shape: tuple[int, ...], axes: Axes, inputs: int, format: Format) -> Array:
    """[*stacked, groups, outputs] as it is stored for a weight of this shape: where all share one, without them."""
    stacked = len(shape) - len(axes)
    groups = leaf.shape[-2:-1] if is_grouped(format) else ()
    outputs = into_out(shape[stacked:], axes, inputs)[1] if stored_axes(axes, inputs, format)["scale"] else ()
    return leaf.reshape(*shape[:stacked], *groups, *outputs)
