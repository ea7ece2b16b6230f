"""Codes in bytes against numpy's, bit by bit; and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.quantize.packing import NAMES, pack

WIDTHS = {8: (8,), 7: (4, 2, 1), 6: (4, 2), 5: (4, 1), 4: (4,), 3: (2, 1), 2: (2,)}


def planes_of(packed):
    found = {width: getattr(packed, name) for width, name in NAMES.items()}
    return {width: np.asarray(plane) for width, plane in found.items() if plane is not None}


@pytest.mark.parametrize("bits", WIDTHS)
def test_each_bit_is_where_it_should_be(bits):
    rng = np.random.default_rng(bits)
    codes = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (3, 16, 5))
    packed = pack(jnp.asarray(codes), bits, ("mlp", "embed"), -2)
    planes = planes_of(packed)
    assert tuple(planes) == WIDTHS[bits]
    assert sum(plane.nbytes for plane in planes.values()) * 8 == codes.size * bits, "not a bit is wasted"
    np.testing.assert_array_equal(packed.codes(), codes)
    assert packed.codes().dtype == jnp.int8
    if bits == 8:
        return
    whole, above = codes + 2 ** (bits - 1), bits
    for width, plane in planes.items():
        above -= width
        part = whole >> above & (2**width - 1)
        wanted = sum(part[:, place :: 8 // width] << width * place for place in range(8 // width))
        np.testing.assert_array_equal(plane, wanted)
    assert packed.leaf_axes() == dict.fromkeys(NAMES.values(), ("mlp", "embed"))


@pytest.mark.parametrize(
    ("bits", "size", "widths"),
    [(3, 4, (4,)), (3, 12, (4,)), (5, 6, (8,)), (5, 4, (4, 2)), (4, 7, (8,)), (2, 2, (4,))],
)
def test_what_does_not_fill_bytes_takes_more_of_them(bits, size, widths):
    rng = np.random.default_rng(0)
    codes = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (5, size))
    packed = pack(jnp.asarray(codes), bits, ("embed", "mlp"))
    assert tuple(planes_of(packed)) == widths
    np.testing.assert_array_equal(packed.codes(), codes)


def test_a_part_of_the_bytes_is_a_part_of_the_codes():
    """As devices hold them, and as a stack of layers is scanned."""
    codes = jnp.asarray(np.random.default_rng(1).integers(-4, 4, (2, 32, 3)))
    packed = pack(codes, 3, ("mlp", "embed"), -2)
    half = jax.tree.map(lambda plane: plane[:, plane.shape[1] // 2 :], packed)
    np.testing.assert_array_equal(half.codes(), codes[:, 16:])
    one = jax.tree.map(lambda plane: plane[1], packed)
    np.testing.assert_array_equal(one.codes(), codes[1])
