import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.train.fingerprint import _words, digest, fingerprint


def random(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def of(array):
    return fingerprint({"x": array})["x"]


DTYPES = [
    "bool",
    "int4",
    "uint2",
    "int8",
    "uint16",
    "int32",
    "float8_e4m3fn",
    "bfloat16",
    "float16",
    "float32",
]


@pytest.mark.parametrize("dtype", [*DTYPES, "int64", "float64", "complex64", "complex128"])
def test_every_dtype_and_every_element_counts(dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    array = np.random.default_rng(0).integers(0, 2, (5, 7)).astype(dtype)
    base = of(array)
    assert re.fullmatch("[0-9a-f]{16}", base)
    for index in np.ndindex(array.shape):
        other = array.copy()
        other[index] = 1 - int(array[index].real)
        assert of(other) != base


@pytest.mark.parametrize("dtype", [*DTYPES, "complex64"])
def test_host_and_device_agree(dtype):
    array = np.random.default_rng(0).integers(0, 2, (5, 7)).astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
    assert of(jnp.asarray(array)) == of(array)


def test_wide_arrays_agree_with_the_host():
    with jax.enable_x64(True):
        array = random((5, 7), np.float64)
        assert of(jnp.asarray(array)) == of(array)


def flip(array, bit):
    raw = array.copy().view(np.uint8).reshape(-1)
    raw[bit // 8] ^= 1 << bit % 8
    return raw.view(array.dtype).reshape(array.shape)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_every_single_bit_flip_is_caught(dtype):
    array = random((33, 17), dtype)
    base = of(array)
    bits = np.random.default_rng(1).choice(8 * array.nbytes, 1000, replace=False)
    missed = [bit for bit in bits if of(flip(array, int(bit))) == base]
    assert missed == []


def exchanged(array, seed):
    first, second = np.random.default_rng(seed).choice(len(array), 2, replace=False)
    other = array.copy()
    other[[first, second]] = array[[second, first]]
    return other


def index(array):
    return np.arange(array.size).reshape(array.shape)


CHANGES = {
    "two rows exchanged": lambda x: exchanged(x, 3),
    "transposed": lambda x: np.ascontiguousarray(x.T),
    "transposed in place": lambda x: np.ascontiguousarray(x.T).reshape(x.shape),
    "reshaped": lambda x: x.reshape(2, -1),
    "reversed": lambda x: x[::-1].copy(),
    "every sign flipped": lambda x: -x,
    "two signs flipped": lambda x: x * np.where(np.arange(x.size).reshape(x.shape) < 2, -1, 1).astype(x.dtype),
    "zeroed page": lambda x: np.where(np.arange(x.size).reshape(x.shape) < 64, 0, x).astype(x.dtype),
    "another dtype": lambda x: x.view(np.int32),
}


@pytest.mark.parametrize("change", CHANGES)
def test_larger_changes_are_caught(change):
    array = random((16, 12))
    assert of(CHANGES[change](array)) != of(array)


def test_flipped_signs_would_cancel_in_a_weighted_sum():
    """Why elements are mixed after the index has entered: the simpler sum misses this change."""

    def weighted(array):
        weights = np.random.default_rng(0).integers(0, 2**31, array.size, dtype=np.uint32) * 2 + 1
        return np.sum(array.view(np.uint32).ravel() * weights, dtype=np.uint32)

    array = random((16, 12))
    assert weighted(-array) == weighted(array)
    assert of(-array) != of(array)


def test_zeros_of_two_lengths_differ():
    assert of(np.zeros(3, np.float32)) != of(np.zeros(5, np.float32))


def test_keys():
    keys = jax.random.split(jax.random.key(0), 3)
    assert of(keys) != of(keys[::-1])
    assert of(keys) != of(jax.random.split(jax.random.key(0, impl="rbg"), 3))


SHAPES = {"kernel": (16, 24), "stacked": (3, 8, 16), "bias": (8,), "step": ()}


def mesh_of(*shape):
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    return Mesh(devices, ("rows", "columns")[: len(shape)])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int8])
def test_equal_on_every_mesh(dtype):
    tree = {name: random(shape).astype(dtype) for name, shape in SHAPES.items()}
    found = []
    for shape, specs in {
        (1,): [()],
        (8,): [("rows",), (None, "rows")],
        (2, 4): [("rows", "columns"), ("columns", "rows"), (("rows", "columns"),), (None, "columns")],
        (4, 2): [("columns", "rows")],
    }.items():
        mesh = mesh_of(*shape)
        for spec in specs:

            def put(array, mesh=mesh, spec=spec):
                axes = tuple(axis if axis else None for axis in spec)[: array.ndim]
                divides = all(
                    size % np.prod([mesh.shape[a] for a in np.atleast_1d(axis)]) == 0
                    for size, axis in zip(array.shape, axes)
                    if axis is not None
                )
                return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*axes if divides else ())))

            placed = jax.tree.map(put, tree)
            assert len(placed["kernel"].sharding.device_set) == mesh.size
            found.append(fingerprint(placed))
    assert len(found) == 8
    assert all(each == fingerprint(tree) for each in found)


def test_only_partial_sums_travel():
    sharding = NamedSharding(mesh_of(2, 4), PartitionSpec("rows", "columns"))
    compiled = _words.lower(jax.device_put(random((64, 128)), sharding)).compile()
    moved = re.findall(r"u32\[([\d,]*)\]\S* all-(?:gather|reduce)\(", compiled.as_text())
    assert moved
    assert all(np.prod([int(size) for size in shape.split(",")]) <= 8 for shape in moved)


def test_names_are_part_of_the_digest():
    a, b = random(3), random(3, seed=1)
    whole = digest(fingerprint({"a": a, "b": b}))
    assert re.fullmatch("[0-9a-f]{16}", whole)
    assert digest(fingerprint({"b": b, "a": a})) == whole
    assert digest(fingerprint({"a": b, "b": a})) != whole
    assert digest(fingerprint({"a": a, "c": b})) != whole


def test_golden():
    """Checkpoints hold these strings: a change of the formula orphans them."""
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert of(array) == "f3c22d893f925a01"


def test_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match="step is a int"):
        fingerprint({"step": 3})


def test_arrays_stay_on_their_devices():
    tree = {
        "a": jax.device_put(random(3), jax.devices()[5]),
        "b": jax.device_put(random(3), jax.devices()[1]),
    }
    assert fingerprint(tree)["a"] == fingerprint(tree)["b"]
