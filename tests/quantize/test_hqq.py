"""Half-quadratic zeros against plain numpy, written from the equations, and against rounding to the nearest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Integers, Nf4
from jaxlm.config.errors import UsageError
from jaxlm.quantize import grid, hqq

run = jax.jit(hqq.rounded, static_argnums=1)


def heavy_tailed(seed=0, shape=(64, 12)):
    return np.random.default_rng(seed).standard_t(2.0, shape).astype(np.float32)


def by_hand(group, bits):
    """Badri and Shaji's two steps in turn, for numbers that share a scale; the best zero of all."""
    f = np.float32
    most = 2**bits - 1
    low, high = min(group.min(), f(0)), max(group.max(), f(0))
    scale = f(high - low) * f(1 / most)
    zero, beta, t = np.rint(-low / scale), f(10.0), group / scale

    def quantized(zero):
        return np.clip(np.rint(t + zero), 0, most).astype(f)

    def error(zero):
        return np.sum(np.abs(t - (quantized(zero) - zero)) ** 0.7)

    best, least = zero, error(zero)
    for _ in range(20):
        q = quantized(zero)
        r = t - (q - zero)
        size = np.maximum(np.abs(r), f(1e-30))
        e = np.sign(r) * np.maximum(size - size ** f(-0.3) / beta, 0)
        zero = np.clip(np.rint(np.mean(q - (t - e)) * 256) / 256, 0, most).astype(f)
        beta = beta * f(1.01)
        if error(zero) < least:
            best, least = zero, error(zero)
    return scale, best, (quantized(best) - best) * scale


@pytest.mark.parametrize(("bits", "group"), [(4, 16), (2, 0)])
def test_the_zeros_are_those_of_the_equations(bits, group):
    matrix, format = heavy_tailed(), Integers(bits, symmetric=False, group=group)
    codes, scales = run(jnp.asarray(matrix), format)
    size, zeros, dense = group or 64, np.asarray(scales.zero), np.zeros_like(matrix)
    wanted = np.zeros_like(zeros)
    for place in range(64 // size):
        for output in range(12):
            part = slice(place * size, (place + 1) * size), output
            scale, wanted[place, output], dense[part] = by_hand(matrix[part], bits)
            assert scales.scale[place, output] == scale
    # In 1/256: a mean that lies between two may go either way, and what follows with it.
    assert np.mean(zeros == wanted) > 0.9
    np.testing.assert_allclose(zeros, wanted, atol=0.02)
    got = np.asarray(grid.values(codes, format, scales))
    assert np.mean(np.abs(got - matrix) ** 0.7) == pytest.approx(np.mean(np.abs(dense - matrix) ** 0.7), rel=1e-3)
    assert np.abs(zeros - np.asarray(grid.fit(jnp.asarray(matrix), format).zero)).max() > 0.1


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [1e-6, 1.0])
def test_the_error_is_below_that_of_the_nearest(bits, size):
    """In the norm it minimizes, as a whole; and of no group above it, whatever the weights' size."""
    matrix = jnp.asarray(heavy_tailed(bits) * np.float32(size))
    format = Integers(bits, symmetric=False, group=16)
    codes, scales = run(matrix, format)
    errors = [
        np.sum(np.abs(np.asarray(one - matrix)).reshape(4, 16, 12) ** 0.7, axis=1)
        for one in (grid.values(codes, format, scales), grid.rounded(matrix, format))
    ]
    assert (errors[0] <= errors[1] * (1 + 1e-4)).all()
    assert errors[0].sum() < 0.95 * errors[1].sum()
    np.testing.assert_array_equal(np.asarray(scales.zero) * 256 % 1, 0)


def test_a_group_of_zeros():
    format = Integers(4, symmetric=False, group=8)
    codes, scales = run(jnp.zeros((16, 2)), format)
    np.testing.assert_array_equal(grid.values(codes, format, scales), np.zeros((16, 2)))


@pytest.mark.parametrize("format", [Integers(4), Nf4(8), Integers(4, symmetric=False, group=-1)], ids=str)
def test_what_has_no_zeros(format):
    with pytest.raises(UsageError, match="symmetric=False"):
        hqq.rounded(jnp.ones((16, 2)), format)
