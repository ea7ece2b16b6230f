"""The one statement of what rounded numbers are.

A matrix [inputs, outputs] is cut into groups of inputs; each group of each output has a scale. With `round` the
nearest integer, ties to the even one:

- Integers, symmetric: q_max = 2^(bits-1) - 1, scale = max|w| / q_max, code = round(w / scale) clipped to
  [-q_max - 1, q_max], value = code * scale. The scale that `fit` finds clips nothing; one that is learned or
  searched for may, and has one level more below zero than above it, as LSQ has.
- Integers, affine: scale = (max(w, 0) - min(w, 0)) / (2^bits - 1), zero = round(-min(w, 0) / scale),
  code = round(w / scale + zero) clipped to [0, 2^bits - 1], value = (code - zero) * scale. The range holds 0, and
  0 is a value exactly. A method may choose zeros between integers, multiples of 1/256 (HQQ).
- Nf4: scale = max|w|, code = the place of the nearest of 16 quantiles to w / scale (of two as near the lower),
  value = quantile * scale. With `double` the scales less their median are integers of 8 bits, one float32 for each
  256 of them, rounded before codes are chosen: what is stored is what codes are nearest in (QLoRA, section 3, with
  the median for the mean, a sum that compilers add up in orders of their own).
  A scale far below others of its block is lost, and its group with it: they are one matrix's, and alike.
- Fp8: scale = max|w| / the largest number, code = the bits of w / scale in that format.

A group whose numbers are all 0 has scale 1, and values of exactly 0; so has one whose scale would not be a normal
float32 number (max|w| below about 1e-38 * q_max). No smaller bound is put to scales: tiny weights are as exact as
large ones. Everything is float32, and the same bit for bit compiled or not: division by a constant is written as
the product with its float32 reciprocal, as compilers would.
"""

from __future__ import annotations

from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm.config.quantization import Format, Fp8, Integers, Nf4, groups, levels
from jaxlm.quantize.formats import FLOATS, LARGEST, NORMAL_QUANTILES

Matrix = Float[Array, "inputs outputs"]
Codes = Int[Array, "inputs outputs"]
ZEROS = 256
"""A zero is a multiple of 1 / this, so that it can be stored in 16 bits."""
BLOCK = 256
"""Scales that share a scale of their own."""


@struct.dataclass
class Double:
    """Scales in 8 bits: (codes * block's scale) + center, blocks along the scales in row-major order."""

    codes: Int[Array, "groups #outputs"]
    scale: Float[Array, "block"]
    center: Float[Array, ""]

    def values(self) -> Float[Array, "groups #outputs"]:
        """The scales, not below the smallest normal number."""
        return undoubled(self.codes, spread(self.scale, self.codes.shape), self.center)


@struct.dataclass
class Scales:
    """What codes are multiplied with; shapes may have 1 for all groups, or all outputs."""

    scale: Float[Array, "groups #outputs"]
    zero: Float[Array, "groups #outputs"] | None = None
    """Of affine integers, the code of 0."""
    double: Double | None = None
    """How `scale` is stored in 8 bits."""


def fit(matrix: Matrix, format: Format) -> Scales:
    """The scales whose grid reaches every number. Raises UsageError for groups that do not divide the inputs."""
    return reaching(*ranges(matrix, format), format)


def ranges(
    matrix: Matrix, format: Format
) -> tuple[Float[Array, "groups #outputs"], Float[Array, "groups #outputs"]]:
    """The least and the greatest number of what shares a scale. Raises as `fit` does."""
    grouped = by_group(matrix, groups(format, matrix.shape[0]))
    if isinstance(format, Integers) and format.group == -1:
        return jnp.min(matrix, keepdims=True), jnp.max(matrix, keepdims=True)
    return jnp.min(grouped, axis=1), jnp.max(grouped, axis=1)


def reaching(low: Float[Array, "groups #outputs"], high: Float[Array, "groups #outputs"], format: Format) -> Scales:
    """The scales of groups between these numbers."""
    largest = jnp.maximum(high, -low)
    match format:
        case Integers(symmetric=True):
            return Scales(_normal(largest, levels(format)[1]))
        case Integers():
            low, high = jnp.minimum(low, 0.0), jnp.maximum(high, 0.0)
            scale = _normal(high - low, levels(format)[1])
            return Scales(scale, jnp.round(-low / scale))
        case Nf4(double=False):
            return Scales(_normal(largest, 1))
        case Nf4():
            double = doubled(_normal(largest, 1))
            return Scales(double.values(), double=double)
        case Fp8(kind=kind):
            return Scales(_normal(largest, LARGEST[kind]))


def codes(matrix: Matrix, format: Format, scales: Scales) -> Codes:
    """The nearest code of each number; groups are as many as `scales` has."""
    scaled = by_group(matrix, scales.scale.shape[0]) / scales.scale[:, None]
    match format:
        case Integers():
            least, most = levels(format)
            if scales.zero is not None:
                scaled = scaled + scales.zero[:, None]
            found = jnp.clip(jnp.round(scaled), least, most).astype(jnp.int32)
        case Nf4():
            between = (NORMAL_QUANTILES[1:] + NORMAL_QUANTILES[:-1]) * np.float32(0.5)
            found = jnp.searchsorted(jnp.asarray(between), scaled).astype(jnp.int32)
        case Fp8(kind=kind):
            bounded = jnp.clip(scaled, -LARGEST[kind], LARGEST[kind]).astype(FLOATS[kind])
            found = jax.lax.bitcast_convert_type(bounded, jnp.uint8).astype(jnp.int32)
    return found.reshape(matrix.shape)


def values(codes: Codes, format: Format, scales: Scales) -> Matrix:
    """The numbers that codes stand for."""
    grouped = by_group(codes, scales.scale.shape[0])
    match format:
        case Integers():
            numbers = grouped.astype(jnp.float32)
            if scales.zero is not None:
                numbers = numbers - scales.zero[:, None]
        case Nf4():
            numbers = jnp.asarray(NORMAL_QUANTILES)[grouped]
        case Fp8(kind=kind):
            bits = jax.lax.bitcast_convert_type(grouped.astype(jnp.uint8), FLOATS[kind])
            numbers = bits.astype(jnp.float32)
    return (numbers * scales.scale[:, None]).reshape(codes.shape)


def rounded(matrix: Matrix, format: Format) -> Matrix:
    """To the nearest on the grid that `fit` finds."""
    scales = fit(matrix, format)
    return values(codes(matrix, format, scales), format, scales)


def by_group(matrix: Array, count: int) -> Array:
    """[inputs, outputs] as [group, input of the group, outputs]."""
    return matrix.reshape(count, -1, matrix.shape[-1])


def _normal(reach: Float[Array, "..."], most: float | int) -> Float[Array, "..."]:
    """reach / most, or 1 where that is no normal number."""
    scale = reach * np.float32(1 / most)
    return jnp.where(scale >= jnp.finfo(jnp.float32).tiny, scale, jnp.float32(1.0))


def doubled(scale: Float[Array, "groups #outputs"]) -> Double:
    """Scales in 8 bits, the largest distance from their median in each block at 127."""
    flat = scale.reshape(-1)
    center = jnp.sort(flat)[flat.size // 2]
    padding = -flat.size % BLOCK
    centered = jnp.pad(flat - center, (0, padding)).reshape(-1, BLOCK)
    # Of 16 significant bits, so that products with codes are exact: the sum with the center is rounded once,
    # whether or not a compiler fuses the two.
    block = jax.lax.reduce_precision(_normal(jnp.max(jnp.abs(centered), axis=1), 127), 8, 15)
    found = jnp.clip(jnp.round(centered / block[:, None]), -127, 127).astype(jnp.int32)
    return Double(found.reshape(-1)[: flat.size].reshape(scale.shape), block, center)


def spread(blocks: Float[Array, "block"], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Each block's number in the place of its scales."""
    return jnp.repeat(blocks, BLOCK)[: prod(shape)].reshape(shape)


def undoubled(
    codes: Int[Array, "..."], factors: Float[Array, "..."], center: Float[Array, ""]
) -> Float[Array, "..."]:
    """codes * factors + center, not below the smallest normal number."""
    return jnp.maximum(codes.astype(jnp.float32) * factors + center, jnp.finfo(jnp.float32).tiny)
