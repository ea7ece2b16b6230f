"""The grid against plain numpy, bit for bit, compiled or not; and what every grid has to promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Fp8, Integers, Nf4
from jaxlm.config.errors import UsageError
from jaxlm.quantize import grid
from tests.quantize.oracles import rounded

FORMATS = [
    *[Integers(bits) for bits in (8, 4, 3, 2)],
    *[Integers(bits, symmetric=False) for bits in (8, 4, 2)],
    Integers(4, group=16),
    Integers(3, symmetric=False, group=8),
    Integers(8, group=-1),
    Integers(5, symmetric=False, group=-1),
    Nf4(16, double=False),
    Fp8(),
    Fp8("e5m2"),
]
IDS = [repr(format) for format in FORMATS]
DOUBLE = Nf4(8)


def matrix(seed=0, shape=(32, 6)):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * np.exp(3 * rng.standard_normal(shape[1]))).astype(np.float32)


@functools.partial(jax.jit, static_argnums=1)
def compiled(matrix, format):
    scales = grid.fit(matrix, format)
    codes = grid.codes(matrix, format, scales)
    return scales, codes, grid.values(codes, format, scales)


@pytest.mark.parametrize("format", FORMATS, ids=IDS)
def test_as_numpy_does_it(format):
    numbers = matrix()
    codes, values = rounded(numbers, format)
    scales, got, dense = compiled(numbers, format)
    np.testing.assert_array_equal(got, codes)
    np.testing.assert_array_equal(dense, values)
    np.testing.assert_array_equal(grid.rounded(jnp.asarray(numbers), format), values)
    assert np.abs(values - numbers).max() > 1e-3
    groups = 32 // format.group if getattr(format, "group", 0) > 0 else 1
    assert scales.scale.shape == ((1, 1) if getattr(format, "group", 0) == -1 else (groups, 6))


@pytest.mark.parametrize("format", [*FORMATS, DOUBLE], ids=[*IDS, "double"])
def test_numbers_of_any_size_are_as_exact(format):
    """No bound on scales: a tiny group is rounded as a large one is. (Two scales in one block are not.)"""
    numbers = matrix(1) if format != DOUBLE else np.random.default_rng(1).standard_normal((32, 6), np.float32)
    wanted = np.asarray(compiled(numbers, format)[2], np.float64)
    for power in (-90, -30, 80):
        dense = compiled(numbers * np.float32(2.0**power), format)[2]
        np.testing.assert_allclose(np.asarray(dense) / 2.0**power, wanted, rtol=1e-5)


@pytest.mark.parametrize("format", [*FORMATS, DOUBLE], ids=[*IDS, "double"])
def test_zeros_are_zeros(format):
    """Alone in a group, beside others, and in a range that does not hold zero of itself."""
    numbers = matrix(2)
    numbers[:, 0], numbers[3:20, 1:3], numbers[:, 4] = 0.0, 0.0, 5 + np.abs(numbers[:, 4])
    numbers[7, 4] = 0.0
    dense = np.asarray(compiled(numbers, format)[2])
    assert np.isfinite(dense).all()
    np.testing.assert_array_equal(dense[numbers == 0], 0.0)
    np.testing.assert_array_equal(compiled(np.full((32, 6), 1e-41, np.float32), format)[2], 0.0)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_half_a_step_off_at_most(bits, symmetric):
    numbers = matrix(3)
    scales, codes, dense = compiled(numbers, Integers(bits, symmetric, 8))
    step = np.repeat(np.asarray(scales.scale), 8, axis=0)
    # An affine range is moved to where 0 is a code: by half a step more.
    assert (np.abs(np.asarray(dense) - numbers) <= step * ((0.5 if symmetric else 1.0) + 1e-5)).all()
    reached = np.asarray(codes).reshape(4, 8, 6)
    if symmetric:
        assert (np.abs(reached).max(axis=1) == 2 ** (bits - 1) - 1).all(), "every group uses the whole range"
    else:
        assert reached.min() == 0
        assert reached.max() == 2**bits - 1


def test_one_level_more_below_zero_where_a_scale_clips():
    codes = grid.codes(jnp.array([[-9.0], [-3.6], [2.5], [3.5], [9.0]]), Integers(3), grid.Scales(jnp.ones((1, 1))))
    np.testing.assert_array_equal(codes[:, 0], [-4, -4, 2, 3, 3])


def test_halves_go_to_the_even_integer_as_in_torch():
    torch = pytest.importorskip("torch")
    halves = np.arange(-8, 8, dtype=np.float32) + 0.5
    codes = grid.codes(jnp.asarray(halves)[:, None], Integers(8), grid.Scales(jnp.ones((1, 1))))
    np.testing.assert_array_equal(codes[:, 0], torch.round(torch.from_numpy(halves)).numpy())
    assert not np.array_equal(codes[:, 0], np.floor(halves + 0.5))
    numbers = matrix(4)
    scales, _, got = compiled(numbers, Integers(8))
    scale, zero = torch.from_numpy(np.array(scales.scale[0])), torch.zeros(6, dtype=torch.int32)
    wanted = torch.fake_quantize_per_channel_affine(torch.from_numpy(numbers), scale, zero, 1, -128, 127)
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-6)


def test_a_zero_between_integers():
    """What a method chose: value = (code - zero) * scale, and the codes nearest on that grid."""
    numbers, format = matrix(5, (8, 3)), Integers(4, symmetric=False)
    scales = grid.Scales(jnp.full((1, 3), 0.25), jnp.full((1, 3), 7.25))
    codes = grid.codes(jnp.asarray(numbers), format, scales)
    np.testing.assert_array_equal(codes, np.clip(np.rint(numbers * 4 + np.float32(7.25)), 0, 15))
    wanted = (np.asarray(codes) - 7.25) * 0.25
    np.testing.assert_allclose(grid.values(codes, format, scales), wanted, rtol=1e-5, atol=1e-6)


def test_doubly_rounded_scales():
    """As QLoRA has them: 8 bits, a scale for each 256, the middle one apart; 0.127 bits a number."""
    numbers = np.random.default_rng(6).standard_normal((64 * 30, 20)).astype(np.float32)
    scales, _, dense = compiled(numbers, Nf4())
    exact = np.abs(numbers.reshape(30, 64, 20)).max(axis=1).reshape(-1)
    center = np.sort(exact)[300]
    centered = np.pad(exact - center, (0, -600 % 256)).reshape(-1, 256)
    step = np.repeat(np.abs(centered).max(axis=1) / 127, 256)[:600]
    wanted = np.rint((exact - center) / step) * step + center
    np.testing.assert_allclose(np.asarray(scales.scale).reshape(-1), wanted, rtol=1e-4)
    many = jax.eval_shape(lambda: grid.fit(jnp.ones((4096, 256)), Nf4())).double
    assert (8 * many.codes.size + 32 * (many.scale.size + 1)) / (4096 * 256) == pytest.approx(0.127, abs=1e-4)
    np.testing.assert_array_equal(grid.rounded(jnp.asarray(numbers), Nf4()), dense)
    plain = compiled(numbers, Nf4(double=False))[2]
    errors = [float(np.mean((np.asarray(one) - numbers) ** 2)) for one in (dense, plain)]
    assert errors[0] == pytest.approx(errors[1], rel=0.01)
    assert errors[0] != errors[1]


def test_nf4_is_made_for_normal_numbers():
    """Relative mean squares as were measured for groups of 64: 0.0083 against 0.0116 of integers."""
    numbers = np.random.default_rng(7).standard_normal((64 * 64, 32)).astype(np.float32)
    dense = [np.asarray(compiled(numbers, f)[2]) for f in (Nf4(double=False), Integers(4, group=64))]
    errors = [float(np.mean((one - numbers) ** 2)) for one in dense]
    assert errors == pytest.approx([0.00827, 0.01157], rel=0.03)


def test_groups_that_divide():
    assert grid.fit(jnp.ones((576, 2)), Integers(4, group=48)).scale.shape == (12, 2)


@pytest.mark.parametrize(
    ("format", "told"),
    [
        (Integers(4, group=100), r"group=100\) does not divide a matrix of 576 inputs: use 96 or 144"),
        (Nf4(group=1000), r"Nf4\(group=1000\) .* use 576"),
        (Integers(4, group=-2), "group=-2"),
        (Integers(9), "2 to 8 bits"),
        (Integers(1, symmetric=False), "2 to 8 bits"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(format, told):
    with pytest.raises(UsageError, match=told):
        grid.fit(jnp.ones((576, 2)), format)
