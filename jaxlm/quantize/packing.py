"""Codes of few bits in whole bytes.

A code of 3 bits is one of 2 and one of 1, and so on: each such plane holds 8, 4, 2 or 1 codes to a byte, neighbors
along one dimension in the same byte, the first in the lowest bits. That dimension is as long as before divided by
the codes in a byte, so it is spread over devices as before.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, UInt8

from jaxlm.parallel.layout import Axes

WIDTHS = (8, 4, 2, 1)
NAMES = {8: "bytes", 4: "nibbles", 2: "pairs", 1: "bits"}


@struct.dataclass
class Packed:
    """Codes of -2^(width-1) to 2^(width-1) - 1, their width the sum of the planes'."""

    bytes: Int[Array, "..."] | None
    nibbles: UInt8[Array, "..."] | None
    pairs: UInt8[Array, "..."] | None
    bits: UInt8[Array, "..."] | None
    dim: int = struct.field(pytree_node=False)
    """Counted from the end: where neighbors share a byte."""
    axes: Axes = struct.field(pytree_node=False)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf: the codes'."""
        return dict.fromkeys(NAMES.values(), self.axes)

    def codes(self) -> Int[Array, "..."]:
        """As int8."""
        if self.bytes is not None:
            return self.bytes
        found, shift = None, 0
        for width in reversed(WIDTHS):
            plane = getattr(self, NAMES[width])
            if plane is not None:
                part = _apart(plane, width, self.dim) << shift
                found, shift = part if found is None else found | part, shift + width
        return found.astype(jnp.int8) - jnp.int8(2 ** (shift - 1))


def pack(codes: Int[Array, "..."], bits: int, axes: Axes, dim: int = -1) -> Packed:
    """Codes of -2^(bits-1) to 2^(bits-1) - 1, as few bits each as their dimension `dim` divides into bytes.

    Where it does not divide by 8, codes of 3 bits are stored in 4, and of 5 in 6 or 8.
    """
    planes = next(planes for planes in _choices(bits) if all(codes.shape[dim] % (8 // w) == 0 for w in planes))
    whole = (codes + 2 ** (sum(planes) - 1)).astype(jnp.uint8)
    found, shift = dict.fromkeys(NAMES.values()), 0
    for width in reversed(planes):
        part = (whole >> shift) & jnp.uint8(2**width - 1)
        found[NAMES[width]] = codes.astype(jnp.int8) if width == 8 else _together(part, width, dim)
        shift += width
    return Packed(**found, dim=dim, axes=axes)


def _choices(bits: int) -> list[tuple[int, ...]]:
    """Planes that hold so many bits, those of the fewest first."""
    every = [()]
    for width in WIDTHS:
        every += [(*planes, width) for planes in every]
    return sorted((planes for planes in every if bits <= sum(planes) <= 8), key=sum)


def _together(part: UInt8[Array, "..."], width: int, dim: int) -> UInt8[Array, "..."]:
    count, place = 8 // width, part.ndim + dim
    neighbors = part.reshape(*part.shape[:place], -1, count, *part.shape[place + 1 :])
    shifts = jnp.arange(0, 8, width, dtype=jnp.uint8)
    shifts = jnp.expand_dims(shifts, [axis for axis in range(neighbors.ndim) if axis != place + 1])
    return jnp.sum(neighbors << shifts, axis=place + 1, dtype=jnp.uint8)


def _apart(plane: UInt8[Array, "..."], width: int, dim: int) -> UInt8[Array, "..."]:
    place = plane.ndim + dim
    mask = jnp.uint8(2**width - 1)
    parts = [(plane >> jnp.uint8(shift)) & mask for shift in range(0, 8, width)]
    shape = (*plane.shape[:place], -1, *plane.shape[place + 1 :])
    return jnp.stack(parts, axis=place + 1).reshape(shape)
