"""Rounding that training passes through, and learned step sizes (Esser et al. 2020, arXiv:1902.08153)."""

from __future__ import annotations

import functools
from math import sqrt

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Format, Integers, levels
from jaxlm.quantize import grid

Matrix = Float[Array, "inputs outputs"]
REACH = 0.5
"""In steps beyond the last level: what is still rounded to it, and not clipped."""


def straight_through(matrix: Matrix, format: Format, scales: grid.Scales) -> Matrix:
    """The rounded matrix, `grid.values` of `grid.codes`; the gradient passes where nothing is clipped.

    Scales have none (Bengio et al. 2013, arXiv:1308.3432, and clipped as in section 2.3 of arXiv:1602.02830).
    """
    return _rounded(matrix, jax.lax.stop_gradient(scales), format, REACH, 0.0)


def learned(matrix: Matrix, format: Integers, scale: Float[Array, "groups #outputs"], sharing: int) -> Matrix:
    """The matrix on a grid of learned steps.

    With v = w / s, the gradient of a value with respect to its number is 1 within the levels and 0 beyond, and with
    respect to s round(v) - v within and the level itself beyond (equations 3 and 5), times 1 / sqrt(N Q_P), where
    `sharing` = N numbers have one step (section 2.2).
    """
    factor = 1 / sqrt(sharing * levels(format)[1])
    return _rounded(matrix, grid.Scales(positive(scale)), format, 0.0, factor)


def positive(scale: Float[Array, "groups #outputs"]) -> Float[Array, "groups #outputs"]:
    """A learned step as it is used: no less than the smallest normal number."""
    return jnp.maximum(scale, jnp.finfo(jnp.float32).tiny)


def initial_scale(matrix: Matrix, format: Format) -> Float[Array, "groups #outputs"]:
    """2 mean|w| / sqrt(Q_P) of what shares a step (section 2.1); a group of zeros begins at 1.

    Raises UsageError for formats without a learned step.
    """
    if not isinstance(format, Integers) or not format.symmetric:
        raise UsageError("lsq learns the step of symmetric integers: use Integers(symmetric=True)")
    most, size = levels(format)[1], jnp.abs(matrix)
    count = grid.ranges(matrix, format)[0].shape[0]
    mean = jnp.mean(size, keepdims=True) if format.group == -1 else jnp.mean(grid.by_group(size, count), axis=1)
    return jnp.where(mean > 0, 2 * mean / sqrt(most), 1.0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _rounded(matrix: Array, scales: grid.Scales, format: Format, reach: float, factor: float) -> Array:
    return grid.values(grid.codes(matrix, format, scales), format, scales)


def _forward(matrix: Array, scales: grid.Scales, format: Format, reach: float, factor: float) -> tuple:
    return _rounded(matrix, scales, format, reach, factor), (matrix, scales)


def _backward(format: Format, reach: float, factor: float, saved: tuple, g: Array) -> tuple:
    matrix, scales = saved
    nothing = jax.tree.map(jnp.zeros_like, scales)
    if not isinstance(format, Integers):
        return g, nothing  # their scales are fitted, and reach everything
    least, most = levels(format)
    count = scales.scale.shape[0]
    v = grid.by_group(matrix, count) / scales.scale[:, None]
    zero = 0.0 if scales.zero is None else scales.zero[:, None]
    inside = (v + zero >= least - reach) & (v + zero <= most + reach)
    grouped = grid.by_group(g, count)
    dw = jnp.where(inside, grouped, 0.0).reshape(matrix.shape)
    if factor == 0.0:
        return dw, nothing
    level = jnp.clip(jnp.round(v + zero), least, most) - zero
    ds = grouped * jnp.where(inside, level - v, level) * factor
    axes = tuple(axis for axis, size in zip((0, 1, 2), (count, 1, scales.scale.shape[1]), strict=True) if size == 1)
    ds = jnp.sum(ds, axis=axes).reshape(scales.scale.shape)
    return dw, nothing.replace(scale=ds)


_rounded.defvjp(_forward, _backward)
