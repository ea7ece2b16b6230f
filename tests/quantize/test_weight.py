"""The weight in few bits: the grid's numbers in every shape, and products that are with just those."""

import dataclasses
import functools
import itertools
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Dynamic, Fp8, Integers, Nf4, NoActivations, Static
from jaxlm.config.errors import UsageError
from jaxlm.layers.axes import shardings, specs
from jaxlm.layers.names import flatten
from jaxlm.layers.projection import Dense, look_up, project
from jaxlm.quantize import grid
from jaxlm.quantize.weight import Quantized
from tests.quantize.oracles import rounded
from tests.tiny import CALL, layout

FORMATS = {
    "int8": Integers(),
    "int4": Integers(4),
    "int3": Integers(3, symmetric=False, group=16),
    "tensor": Integers(5, symmetric=False, group=-1),
    "group": Integers(8, group=8),
    "nf4": Nf4(16, double=False),
    "double": Nf4(8),
    "e4m3": Fp8(),
    "e5m2": Fp8("e5m2"),
}
SHAPES = {
    "query": ((32, 4, 8), ("embed", "heads", "head"), 1, "rpe,ehd->rphd"),
    "out": ((4, 8, 32), ("heads", "head", "embed"), 2, "rphd,hde->rpe"),
    "down": ((64, 16), ("mlp", "embed"), 1, "rpe,em->rpm"),
}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@functools.cache
def weight(shape, stacked=0, bias=False):
    dims, axes, inputs, _ = SHAPES[shape]
    kernel = draw(*(3,) * stacked, *dims) * np.exp(draw(*dims[inputs:], seed=1))
    return Dense(jnp.asarray(kernel), jnp.asarray(draw(*dims[inputs:])) if bias else None, axes, inputs)


def by_hand(kernel, format, inputs):
    if format == FORMATS["double"]:
        matrix = jnp.asarray(kernel.reshape(prod(kernel.shape[:inputs]), -1))
        return np.asarray(grid.rounded(matrix, format)).reshape(kernel.shape)
    return rounded(kernel.reshape(prod(kernel.shape[:inputs]), -1), format)[1].reshape(kernel.shape)


PAIRS = [("query", name) for name in FORMATS] + [
    (shape, name) for shape in ("out", "down") for name in ("int3", "group", "tensor")
]
of = jax.jit(Quantized.of, static_argnames=("format", "activations"))
dense = jax.jit(lambda weight: weight.dense())


@functools.partial(jax.jit, static_argnames=("spec", "call"))
def multiply(weight, x, spec, call=CALL):
    return project(weight, x, spec, call)


@pytest.mark.parametrize(("shape", "name"), PAIRS)
def test_the_numbers_are_the_grids(shape, name):
    """Bit for bit, of one layer and of a stack of them, compiled or not, and from codes as well."""
    format, inputs = FORMATS[name], SHAPES[shape][2]
    many = weight(shape, 1)
    stack = of(many, format)
    wanted = [by_hand(np.asarray(one), format, inputs) for one in many.kernel]
    np.testing.assert_array_equal(dense(stack), wanted)
    one = jax.tree.map(lambda leaf: leaf[1], stack)
    np.testing.assert_array_equal(dense(one), wanted[1])
    abstract = jax.eval_shape(lambda: Quantized.of(many, format))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), abstract) == jax.tree.map(lambda a: (a.shape, a.dtype), stack)


@pytest.mark.parametrize(("shape", "name"), PAIRS)
def test_products_are_with_those_numbers(shape, name):
    """For one row and for many, which are computed in different ways on a CPU."""
    *_, inputs, spec = SHAPES[shape]
    small = of(weight(shape, bias=True), FORMATS[name])
    exact = np.asarray(dense(small), np.float64)
    for rows in (1, 60):
        x = draw(rows, 1, *exact.shape[:inputs], seed=2)
        got = np.asarray(multiply(small, jnp.asarray(x), spec), np.float64)
        wanted = np.einsum(spec, x, exact) + np.asarray(small.bias)
        assert np.abs(got - wanted).max() <= 2e-6 * np.abs(wanted).max()
        plain = np.einsum(spec, x, np.asarray(weight(shape).kernel, np.float64)) + np.asarray(small.bias)
        assert np.abs(got - plain).max() > 2e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("name", ["int8", "int3", "nf4"])
def test_with_activations_on_levels(name):
    """Token by token, or one step that a calibration found: the product of both sides' rounded numbers."""
    *_, spec = SHAPES["out"]
    x = draw(3, 2, 4, 8, seed=3) * np.exp(2 * draw(3, 2, 1, 1, seed=4))
    small = of(weight("out"), FORMATS[name], Dynamic())
    step = np.abs(x).max(axis=(2, 3), keepdims=True) * np.float32(1 / 127)
    exact = np.asarray(dense(small), np.float64)
    wanted = np.einsum(spec, np.rint(x / step) * step.astype(np.float64), exact)
    got = np.asarray(multiply(small, jnp.asarray(x), spec))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).min(axis=-1).max())
    assert np.abs(got - np.einsum(spec, x, exact)).max() > 1e-3
    fixed = of(weight("out"), FORMATS[name], Static(bits=6))
    assert np.isnan(multiply(fixed, jnp.asarray(x), spec)).any(), "not calibrated: no number, and not a wrong one"
    fixed = fixed.replace(activation=jnp.float32(0.05))
    wanted = np.einsum(spec, np.clip(np.rint(x / np.float32(0.05)), -32, 31) * 0.05, exact)
    np.testing.assert_allclose(multiply(fixed, jnp.asarray(x), spec), wanted, rtol=1e-4, atol=1e-4)


def test_codes_that_a_method_chose():
    """Any codes and scales in the place of the weight's numbers; clipped by nobody."""
    format = Integers(4, symmetric=False, group=8)
    codes = np.random.default_rng(0).integers(0, 16, (64, 16))
    scales = grid.Scales(jnp.asarray(np.exp(draw(8, 16))), jnp.asarray(np.round(256 * draw(8, 16)) / 256 + 7))
    small = Quantized.from_codes(weight("down"), jnp.asarray(codes), scales, format)
    np.testing.assert_array_equal(small.dense(), grid.values(jnp.asarray(codes), format, scales))
    x = draw(2, 1, 64, seed=5)
    wanted = np.einsum("rpe,em->rpm", x, np.asarray(small.dense(), np.float64))
    np.testing.assert_allclose(multiply(small, jnp.asarray(x), "rpe,em->rpm"), wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="8 bits"):
        Quantized.from_codes(weight("down"), jnp.asarray(codes), dataclasses.replace(scales, zero=None), Nf4(8))


def test_without_a_compiler_the_same():
    for name in ("int3", "double"):
        small = Quantized.of(weight("query"), FORMATS[name])
        np.testing.assert_array_equal(small.dense(), dense(of(weight("query"), FORMATS[name])))


def test_bytes():
    """What is stored, for a matrix of 64 by 16."""
    sizes = {
        name: sum(leaf.nbytes for leaf in jax.tree.leaves(of(weight("down"), format)))
        for name, format in FORMATS.items()
    }
    assert sizes == {
        "int8": 1024 + 4 * 16,
        "int4": 512 + 4 * 16,
        "int3": 384 + (4 + 2) * 4 * 16,
        "tensor": 640 + 4 + 2,
        "group": 1024 + 4 * 8 * 16,
        "nf4": 512 + 4 * 4 * 16,
        "double": 512 + 8 * 16 + 4 + 4,
        "e4m3": 1024 + 4 * 16,
        "e5m2": 1024 + 4 * 16,
    }


@pytest.mark.parametrize("rows", [1, 60])
def test_the_transpose(rows):
    """As a tied embedding is multiplied with; of activations on levels there is none."""
    small = of(weight("down"), Integers())
    x = draw(rows, 1, 16)
    wanted = np.einsum("rpe,ve->rpv", x, np.asarray(small.dense(), np.float64))
    np.testing.assert_allclose(multiply(small, jnp.asarray(x), "rpe,ve->rpv"), wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="transpose"):
        project(of(weight("down"), Integers(), Dynamic()), jnp.asarray(x), "rpe,ve->rpv", CALL)


@pytest.mark.parametrize("name", ["int8", "group", "tensor", "double"])
def test_a_table_of_tokens_is_rounded_by_rows(name):
    """Each token's vector by itself; looked up, and multiplied by its transpose as a tied head is."""
    format = FORMATS[name]
    table = Dense(jnp.asarray(draw(24, 16) * np.exp(2 * draw(24, 1, seed=1))), None, ("vocab", "embed"))
    small, ids = of(table, format), jnp.array([[3, 0], [23, 3]])
    exact = np.asarray(dense(small))
    np.testing.assert_array_equal(exact, by_hand(np.asarray(table.kernel).T, format, 1).T)
    np.testing.assert_array_equal(jax.jit(lambda w, ids: w.rows(ids))(small, ids), exact[np.asarray(ids)])
    np.testing.assert_array_equal(look_up(small, ids, CALL), exact[np.asarray(ids)])
    for rows in (1, 60):
        x = draw(rows, 16, seed=2)
        wanted = x @ exact.T.astype(np.float64)
        got = multiply(small, jnp.asarray(x), "te,ve->tv")
        assert np.abs(got - wanted).max() <= 2e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("activations", [NoActivations(), Dynamic()])
def test_the_gradient_is_the_dense_ones(activations):
    """With respect to what comes in, as adapters below need it; of what is stored there is none."""
    small = of(weight("query"), Integers(4, group=8), activations)
    g = jnp.asarray(draw(1, 1, 4, 8, seed=6))
    wanted = np.einsum("rphd,ehd->rpe", g, small.dense())
    for rows in (1, 60):
        x = jnp.asarray(draw(rows, 1, 32))
        got = jax.grad(lambda x, rows=rows: jnp.sum(multiply(small, x, "rpe,ehd->rphd") * jnp.repeat(g, rows, 0)))(
            x
        )
        np.testing.assert_allclose(got, np.repeat(wanted, rows, 0), rtol=1e-4, atol=1e-4)


MESH = {
    "out": ("rphd,hde->rpe", ("row", "pos", "heads", "head")),
    "query": ("rpe,ehd->rphd", ("row", "pos", "features")),
}


DAILY = {("int4", "out", Dynamic()), ("group", "query", NoActivations()), ("double", "out", NoActivations())}


@pytest.mark.parametrize(
    ("name", "shape", "activations"),
    [
        pytest.param(*case, marks=() if case in DAILY else pytest.mark.nightly)
        for case in itertools.product(("int4", "group", "double", "tensor"), MESH, (NoActivations(), Dynamic()))
    ],
)
def test_on_eight_devices(name, shape, activations):
    """Stored in parts and used in parts: within `spmd`, where each device has its own, the same product."""
    spec, axes = MESH[shape]
    small, mesh = of(weight(shape), FORMATS[name], activations), layout(data=2, fsdp=2, tensor=2)
    x = jnp.asarray(draw(8, 2, *weight(shape).kernel.shape[: small.inputs]))
    wanted = multiply(small, x, spec)
    places = shardings(small, mesh)
    split = [leaf.is_fully_replicated for leaf in jax.tree.leaves(places.codes)]
    assert not any(split), "codes are held in parts"
    call = dataclasses.replace(CALL, layout=mesh)
    in_specs = specs(small, mesh), mesh.spec(axes, x.shape[: len(axes)])
    # Rows are whole along the tensor axis here: what reduces scatters positions over it.
    result = ("row", "tokens") if shape == "out" else ("row", "pos", "heads")
    run = mesh.spmd(
        lambda w, x: project(w, x, spec, call), in_specs, mesh.spec(result, wanted.shape[: len(result)])
    )
    got = jax.jit(run)(jax.device_put(small, places), x)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)


def test_what_cannot_be_spread_says_so():
    small = Quantized.of(Dense(jnp.ones((6, 4)), None, ("mlp", "embed")), Integers(4, group=2))
    with pytest.raises(UsageError, match=r"dimension 3 of .* does not divide into 2 shards"):
        shardings(small, layout(data=4, tensor=2))
    mesh = layout(data=4, tensor=2)
    small = of(weight("down"), Integers())
    run = mesh.spmd(
        lambda w: w.dense(), (jax.tree.map(lambda place: place.spec, shardings(small, mesh)),), mesh.spec((), ())
    )
    with pytest.raises(UsageError, match="no dense form"):
        run(small)


def test_names_of_leaves():
    assert list(flatten(of(weight("down"), Nf4(8), Static()))) == [
        "codes.nibbles",
        "scale",
        "blocks.scale",
        "blocks.center",
        "activation",
    ]
