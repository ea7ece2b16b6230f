"""Rotary embedding as the paper has it: multiplication of complex numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers import rope
from jaxlm.layers.initial import Initial
from jaxlm.layers.positions import initial_position

HEAD = 8
X = np.random.default_rng(0).standard_normal((2, 5, 3, HEAD)).astype(np.float32)
POSITIONS = np.array([[0, 1, 2, 7, 500], [3, 3, 1000, 0, 64]])


def by_complex_numbers(x, positions, theta, rotated, pairs):
    x, half = x.astype(np.float64), rotated // 2
    first = np.arange(half) if pairs == "halves" else 2 * np.arange(half)
    second = first + half if pairs == "halves" else first + 1
    turn = np.exp(1j * positions[:, :, None, None] * theta ** (-2.0 * np.arange(half) / rotated))
    turned, result = (x[..., first] + 1j * x[..., second]) * turn, x.copy()
    result[..., first], result[..., second] = turned.real, turned.imag
    return result


@pytest.mark.parametrize("pairs", ["halves", "interleaved"])
@pytest.mark.parametrize("rotated", [HEAD, 4])
def test_planes_turn_as_complex_numbers(pairs, rotated):
    got = rope.rotate(jnp.asarray(X), jnp.asarray(POSITIONS), rope.frequencies(100.0, rotated), pairs)
    # The angle of position 1000 has a float32 error of 3e-5 radians.
    np.testing.assert_allclose(got, by_complex_numbers(X, POSITIONS, 100.0, rotated, pairs), atol=2e-4)
    np.testing.assert_array_equal(np.asarray(got)[..., rotated:], X[..., rotated:])
    other = {"halves": "interleaved", "interleaved": "halves"}[pairs]
    assert np.abs(got - by_complex_numbers(X, POSITIONS, 100.0, rotated, other)).max() > 0.1


@pytest.mark.parametrize("pairs", ["halves", "interleaved"])
def test_scores_depend_on_the_distance_only(pairs):
    radians = rope.frequencies(10_000.0, HEAD)
    q, k = jnp.asarray(X[:1, :1]), jnp.asarray(X[1:, :1])

    def score(i, j):
        turned = (rope.rotate(x, jnp.array([[at]]), radians, pairs) for x, at in ((q, i), (k, j)))
        return jnp.sum(jnp.multiply(*turned), axis=-1)

    np.testing.assert_allclose(score(9, 4), score(105, 100), atol=2e-5)
    assert np.abs(score(9, 4) - score(9, 5)).max() > 1e-2


def test_a_fraction_must_leave_whole_planes():
    x, init = jnp.asarray(X), Initial(None)
    half = initial_position(config.Rope(fraction=0.5), 16, init).rotate(x, jnp.asarray(POSITIONS))
    np.testing.assert_array_equal(half[..., HEAD // 2 :], X[..., HEAD // 2 :])
    with pytest.raises(UsageError, match=r"fraction 0\.4 of a head of 8 is 3"):
        initial_position(config.Rope(fraction=0.4), 16, init).rotate(x, jnp.asarray(POSITIONS))


@pytest.mark.parametrize("pairs", ["halves", "interleaved"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_tpu_computes_is_the_same(pairs, dtype):
    """A product with ones and minus ones in the place of slices: exact, in any format."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 5, 3, 8)), dtype)
    angles = jnp.asarray(rng.uniform(0, 6, (2, 5, 1, 4)), jnp.float32)
    turns = (jnp.cos(angles), jnp.sin(angles))
    by_planes, by_product = (f(x, *turns, pairs=pairs) for f in (rope._by_planes, rope._by_product))
    assert by_product.dtype == dtype
    tolerance = 1e-6 if dtype == "float32" else 2**-7
    np.testing.assert_allclose(
        np.asarray(by_product, np.float32), np.asarray(by_planes, np.float32), atol=tolerance * 3
    )
