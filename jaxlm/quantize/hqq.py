"""Half-quadratic quantization: zeros that suit most numbers of a group, found without data.

Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models": with scales as they are
fitted, zeros minimize the l_p norm of the error, p < 1, which forgives the few numbers that are far off. The error
is taken apart into e, which the norm pulls to 0, and the rest, quadratic in the zero; each has a closed solution:

    e    <- sign(r) max(|r| - |r|^(p - 1) / beta, 0),   r = t - (q - zero),  t = w / scale
    zero <- mean over the group of q - (t - e),          q = clip(round(t + zero))
    beta <- kappa * beta

Residuals are counted in steps of the grid here, so that the result does not depend on how large the weights are.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Format, Integers, levels
from jaxlm.quantize import grid

Tree = TypeVar("Tree")

NORM = 0.7
"""p."""
BETA = 10.0
KAPPA = 1.01
ITERATIONS = 20


def rounded(
    matrix: Float[Array, "inputs outputs"], format: Format
) -> tuple[Int[Array, "inputs outputs"], grid.Scales]:
    """Codes and scales; of the zeros on the way, each group's with the least error.

    Raises UsageError for formats that have no zeros.
    """
    if not isinstance(format, Integers) or format.symmetric or format.group == -1:
        raise UsageError("hqq moves zeros: use Integers(symmetric=False) with group 0 or more")
    first = grid.fit(matrix, format)
    count = first.scale.shape[0]
    steps = grid.by_group(matrix, count) / first.scale[:, None]

    def residual(zero: Array) -> tuple[Array, Array]:
        codes = grid.codes(matrix, format, dataclasses.replace(first, zero=zero))
        q = grid.by_group(codes, count).astype(jnp.float32)
        return q, steps - (q - zero[:, None])

    def iterate(place: Array, carried: tuple) -> tuple:
        zero, best, least = carried
        q, r = residual(zero)
        size = jnp.abs(r)
        shrunk = size - jnp.where(size > 0, size, 1.0) ** (NORM - 1) / (BETA * KAPPA**place)
        e = jnp.sign(r) * jnp.maximum(shrunk, 0.0)
        zero = jnp.mean(q - (steps - e), axis=1)
        zero = jnp.clip(jnp.round(zero * grid.ZEROS) / grid.ZEROS, *levels(format))
        error = _norm(residual(zero)[1])
        better = error < least
        return zero, jnp.where(better, zero, best), jnp.where(better, error, least)

    start = first.zero, first.zero, _norm(residual(first.zero)[1])
    _, zero, _ = jax.lax.fori_loop(0, ITERATIONS, iterate, start)
    scales = dataclasses.replace(first, zero=zero)
    return grid.codes(matrix, format, scales), scales


def _norm(r: Float[Array, "groups size outputs"]) -> Float[Array, "groups outputs"]:
    """The sum of |r|^p over each group, whose p-th root is the norm."""
    size = jnp.abs(r)
    return jnp.sum(jnp.where(size > 0, jnp.where(size > 0, size, 1.0) ** NORM, 0.0), axis=1)
