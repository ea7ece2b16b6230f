"""Products of bytes against numpy's integers, and of activations in pieces against float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.quantize import products

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("rows", "groups", "inputs"), [(1, 1, 4096), (2, 1, 33), (5, 4, 64), (1, 3, 48)])
def test_sums_of_integers_are_exact(rows, groups, inputs):
    """Also where every product is the largest there is, and no float32 could hold the sum."""
    x = RNG.integers(-127, 128, (rows, inputs))
    codes = RNG.integers(-128, 128, (groups, 6, inputs // groups))
    x[0], codes[:, 0] = 127, 127
    x[0, -1] = 126
    got = jax.jit(products.integer_product)(jnp.asarray(x, jnp.int8), jnp.asarray(codes, jnp.int8))
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, np.einsum("rgi,goi->gro", x.reshape(rows, groups, -1), codes))
    if inputs == 4096:
        assert int(np.float32(got[0, 0, 0])) != got[0, 0, 0]


@functools.cache
def weight(groups, zeros):
    codes = RNG.integers(-128, 128, (groups, 12, 96 // groups))
    scale = np.exp(RNG.standard_normal((groups, 12))).astype(np.float32)
    zero = {"none": None, "whole": RNG.integers(-128, 128, scale.shape), "between": RNG.uniform(-9, 9, scale.shape)}
    zero = None if zeros == "none" else jnp.asarray(np.round(zero[zeros] * 256) / 256, jnp.float32)
    dense = (codes - (0 if zero is None else np.asarray(zero, np.float64)[..., None])) * scale[..., None]
    return jnp.asarray(codes, jnp.int8), jnp.asarray(scale), zero, np.moveaxis(dense, 0, 1).reshape(12, 96)


run = jax.jit(products.product, static_argnums=5)


@pytest.mark.parametrize("zeros", ["none", "whole", "between"])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("rows", [1, 3])
def test_pieces_are_as_exact_as_float32(rows, groups, zeros):
    codes, scale, zero, dense = weight(groups, zeros)
    x = (RNG.standard_normal((rows, 96)) * np.exp(2 * RNG.standard_normal((rows, 1)))).astype(np.float32)
    got = np.asarray(run(jnp.asarray(x), codes, scale, zero, None, 8), np.float64)
    unit = np.abs(x).max(axis=1, keepdims=True) * np.abs(dense).sum(axis=1)
    assert (np.abs(got - x @ dense.T) / unit).max() < 3e-7
    rough = np.asarray(run(jnp.asarray(x, jnp.bfloat16), codes, scale, zero, None, 8), np.float64)
    error = (np.abs(rough - np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) @ dense.T) / unit).max()
    assert 3e-8 < error < 2e-5, "two pieces for 16 bits"


@pytest.mark.parametrize("zeros", ["none", "whole", "between"])
def test_on_levels_as_numpy_has_them(zeros):
    codes, scale, zero, dense = weight(4, zeros)
    x = RNG.standard_normal((3, 96)).astype(np.float32)
    for bits in (8, 4):
        most = 2 ** (bits - 1) - 1
        step = np.abs(x).max(axis=1, keepdims=True) * np.float32(1 / most)
        np.testing.assert_array_equal(products.steps(jnp.asarray(x), bits), step)
        rounded = np.rint(x / step) * step.astype(np.float64)
        got = run(jnp.asarray(x), codes, scale, zero, jnp.asarray(step), bits)
        unit = np.abs(x).max() * np.abs(dense).sum(axis=1)
        assert (np.abs(got - rounded @ dense.T) / unit).max() < 3e-7
        assert (np.abs(got - x @ dense.T) / unit).max() > 1e-4
        fixed = jnp.full((1, 1), 0.01)
        clipped = np.clip(np.rint(x / np.float32(0.01)), -most - 1, most) * 0.01
        got = run(jnp.asarray(x), codes, scale, zero, fixed, bits)
        assert (np.abs(got - clipped @ dense.T) / unit).max() < 3e-7


def test_gradients_pass_what_is_not_clipped():
    codes, scale, zero, dense = weight(4, "whole")
    x, g = jnp.asarray(RNG.standard_normal((3, 96)), jnp.float32), RNG.standard_normal((3, 12))

    def gradient(step):
        run = lambda x: jnp.vdot(products.product(x, codes, scale, zero, step, 8), jnp.asarray(g, jnp.float32))  # noqa: E731
        return jax.grad(run)(x)

    np.testing.assert_allclose(gradient(None), g @ dense, rtol=1e-4, atol=1e-2)
    step = jnp.full((1, 1), 0.01)
    inside = (x <= 1.275) & (x >= -1.285)
    assert 0 < inside.mean() < 1
    np.testing.assert_allclose(gradient(step), np.where(inside, g @ dense, 0), rtol=1e-4, atol=1e-2)
    faked = jax.grad(lambda x: jnp.vdot(products.straight_through(x, step, 8), x))(x)
    np.testing.assert_allclose(
        faked, np.where(inside, x, 0) + np.clip(np.rint(x / 0.01), -128, 127) * 0.01, atol=1e-5
    )


def test_a_row_of_zeros():
    codes, scale, _, _ = weight(1, "none")
    zeros = jnp.zeros((2, 96))
    for step in (None, products.steps(zeros, 8)):
        np.testing.assert_array_equal(run(zeros, codes, scale, None, step, 8), np.zeros((2, 12)))
