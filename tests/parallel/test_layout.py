"""The one table from logical axes to mesh axes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxlm.config.errors import UsageError
from jaxlm.parallel.layout import TABLE, Layout, single_device
from tests.tiny import layout

ROW = ("replica", "data", "fsdp", "expert", "pipeline")
CUBE = layout(fsdp=2, tensor=2)


@pytest.mark.parametrize(
    ("axes", "shape", "spec"),
    [
        (("embed", "heads", "head"), (16, 4, 8), PartitionSpec(None, "tensor", None)),
        (("embed", "mlp"), (3, 16, 32), PartitionSpec(None, None, "tensor")),
        (("row", "pos", "features"), (8, 5, 3), PartitionSpec(ROW, "context", None)),
        (("row", "tokens"), (8, 6), PartitionSpec(ROW, ("context", "tensor"))),
        (("vocab", "embed"), (64, 16), PartitionSpec("tensor", None)),
        ((), (7,), PartitionSpec(None)),
    ],
)
def test_spec_in_use(axes, shape, spec):
    assert CUBE.spec(axes, shape) == spec


STORE = ("fsdp", "context")
EVERYTHING = ("embed", "heads", "mlp", "vocab")


@pytest.mark.parametrize(
    ("mesh", "stored", "axes", "spec"),
    [
        ({"fsdp": 2, "tensor": 2}, ("embed",), ("embed", "mlp"), PartitionSpec(STORE, "tensor")),
        ({"fsdp": 2, "tensor": 2}, ("embed",), ("mlp", "embed"), PartitionSpec("tensor", STORE)),
        ({"fsdp": 2, "tensor": 2}, EVERYTHING, ("mlp", "embed"), PartitionSpec(("tensor", *STORE), None)),
        ({"fsdp": 8}, EVERYTHING, ("mlp", "embed"), PartitionSpec(("tensor", *STORE), None)),
        ({"fsdp": 8}, ("embed",), ("mlp", "embed"), PartitionSpec("tensor", STORE)),
        ({"fsdp": 2}, EVERYTHING, ("embed",), PartitionSpec(None)),
        ({"fsdp": 2}, EVERYTHING, ("rank", "kv_heads"), PartitionSpec(None, "tensor")),
    ],
)
def test_spec_in_storage(mesh, stored, axes, spec):
    """The first dimension that may, beside what shards it in use; never a vector's."""
    where = dataclasses.replace(layout(**mesh), stored=stored)
    assert where.stored_spec(axes, (16, 32)[: len(axes)]) == spec


def test_stacked_layers_lie_on_stages():
    """The dimension in front that axes do not name, of a parameter only."""
    where = layout(pipeline=2, fsdp=2)
    assert where.stored_spec(("embed", "mlp"), (8, 16, 32)) == PartitionSpec("pipeline", STORE, "tensor")
    assert where.stored_spec(("features",), (8, 16)) == PartitionSpec("pipeline", None)
    assert where.stored_spec(("embed", "mlp"), (16, 32)) == PartitionSpec(STORE, "tensor")
    assert where.spec(("embed", "mlp"), (8, 16, 32)) == PartitionSpec(None, None, "tensor")


@pytest.mark.parametrize(
    ("axes", "shape", "message"),
    [
        (("embed", "hands"), (16, 4), r"'hands' is not in the layout's table \(embed, "),
        (("heads", "mlp"), (4, 32), r"mesh axis 'tensor' would shard two dimensions of \('heads', 'mlp'\)"),
        (("row",), (6,), r"dimension 6 of \('row',\) .* into 4 shards \(data x fsdp\): use 4 or 8"),
        (("mlp",), (1,), r"dimension 1 .* into 2 shards \(tensor\): use 2, or fewer"),
        (("embed", "mlp"), (16,), "more axes than"),
    ],
)
def test_errors_have_the_numbers(axes, shape, message):
    with pytest.raises(UsageError, match=message):
        CUBE.spec(axes, shape)


def test_sizes():
    assert [CUBE.shards(axis) for axis in ("row", "embed", "heads", "pos")] == [4, 1, 2, 1]


def test_a_layout_is_static_and_hashable():
    assert layout(fsdp=2, tensor=2) == CUBE
    assert hash(CUBE) == hash(layout(fsdp=2, tensor=2))
    assert layout(fsdp=8) != CUBE


def test_one_device_leaves_everything_alone():
    one, x = single_device(), jnp.ones((3, 5))
    assert one.constrain(x, ("row", "embed")) is x
    assert one.gather(x, ("embed", "mlp")) is x
    assert one.sum(x, "row") is x
    f = jnp.sin
    assert one.manual(f, (("row",),), ("row",)) is f
    assert one.spmd(f, (PartitionSpec(),), PartitionSpec()) is f
    assert one.barrier(x) is x
    assert one.pass_on(x, "pos") is x
    assert one.exchange(x, "pos", split=0, join=1) is x
    assert (one.parts(), one.index("row")) == (1, 0)
    assert one.total(x) is x


def test_constrain_places_the_shards():
    x = jax.jit(lambda x: CUBE.constrain(2 * x, ("row", "pos", "mlp")))(jnp.ones((8, 3, 32)))
    assert x.addressable_shards[0].data.shape == (2, 3, 16)


def test_gather_and_its_transpose():
    """A parameter is whole over the storage axis in use; its gradient comes back in shards."""
    axes = ("embed", "mlp")
    w = jax.device_put(jnp.arange(32.0).reshape(8, 4), CUBE.stored_sharding(axes, (8, 4)))
    x = jnp.cos(jnp.arange(64.0)).reshape(8, 8)

    def used(w):
        return CUBE.gather(w, axes)

    whole = jax.jit(used)(w)
    assert whole.addressable_shards[0].data.shape == (8, 2)
    np.testing.assert_array_equal(whole, w)
    gradient = jax.jit(jax.grad(lambda w: jnp.sum(jnp.sin(x @ used(w)))))(w)
    assert gradient.addressable_shards[0].data.shape == (4, 2)
    np.testing.assert_allclose(gradient, jax.grad(lambda w: jnp.sum(jnp.sin(x @ w)))(jnp.asarray(w)), atol=2e-5)


@pytest.mark.parametrize("mesh", [{"fsdp": 2, "tensor": 2}, {"fsdp": 8}, {}])
def test_manual_and_sum(mesh):
    where, x = layout(**mesh), jnp.arange(32.0).reshape(8, 4)
    shapes = []

    def center(x, scale):
        shapes.append(x.shape)
        return (x - where.sum(jnp.sum(x, 0, keepdims=True), "row") / 8) * scale

    run, scale = where.manual(center, (("row", "mlp"), ("pos", "mlp")), ("row", "mlp")), jnp.arange(4.0)[None]
    np.testing.assert_allclose(jax.jit(run)(x, scale), (x - x.mean(0, keepdims=True)) * scale, atol=1e-5)
    assert shapes[-1] == (8 // where.shards("row"), 4 // where.shards("mlp")), "f must see its own shard only"


def test_a_table_may_be_replaced_whole():
    mine = Layout(CUBE.mesh, (*(entry for entry in TABLE if entry[0] != "mlp"), ("mlp", ("data",))))
    assert mine.spec(("embed", "mlp"), (16, 32)) == PartitionSpec(None, "data")


MESHES = [
    {},
    {"fsdp": 8},
    {"fsdp": 2, "tensor": 2},
    {"fsdp": 2, "context": 2, "expert": 2},
    {"context": 4, "tensor": 2},
]


@pytest.mark.parametrize("mesh", MESHES)
def test_one_program_a_device_has_the_gradient_of_the_sum(mesh):
    """Gathered parameters, copies, and tokens that devices join: each gradient is that of the whole batch."""
    where = layout(**mesh)
    draw = np.random.default_rng(0)
    axes = (("embed", "mlp"), ("mlp", "embed"), ("features",))
    parameters = [jnp.asarray(draw.normal(size=size), jnp.float32) for size in ((8, 4), (4, 8), (8,))]
    x = jnp.asarray(draw.normal(size=(8, 16, 8)), jnp.float32)

    def loss(parameters, x, on):
        up, down, scale = parameters
        hidden = jnp.tanh(on.enter(x * scale[None, None]) @ on.gather(up, axes[0]))
        y = on.reduce(hidden @ on.gather(down, axes[1]), ("mlp",))
        return jnp.sum((x + y) ** 2)

    specs = [where.stored_spec(names, p.shape) for names, p in zip(axes, parameters, strict=True)]
    total = functools.partial(where.total_gradient, dtype="float32")

    def of_a_device(parameters, x):
        assert x.shape == (8 // where.shards("row"), 16 // where.shards("tokens"), 8)
        value, gradients = jax.value_and_grad(loss)(parameters, x, where)
        return where.total(value), jax.tree.map(total, gradients, specs)

    given = (specs, where.spec(("row", "tokens"), x.shape[:2]))
    run = jax.jit(where.spmd(of_a_device, given, (PartitionSpec(), specs)))
    wanted, gradients = jax.value_and_grad(loss)(parameters, x, single_device())
    got, others = run(parameters, x)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    for one, other in zip(gradients, others, strict=True):
        assert np.linalg.norm(other - one) <= 5e-6 * np.linalg.norm(one)


@pytest.mark.parametrize("rows", [4, 8])
def test_tokens_are_joined_and_scattered_also_in_a_single_row(rows):
    """A device with one row brings its positions to the front, where TPUs scatter sums."""
    where, x = layout(fsdp=4, tensor=2), jnp.arange(rows * 18.0).reshape(rows, 6, 3)

    def of_a_device(x):
        joined = where.enter(x)
        assert joined.shape == (rows // 4, 6, 3)
        return where.reduce(jnp.where(where.index("mlp") == 0, joined, 10 * joined), ("mlp",))

    spec = where.spec(("row", "tokens"), x.shape[:2])
    run = where.spmd(of_a_device, (spec,), spec)
    np.testing.assert_array_equal(jax.jit(run)(x), 11 * x)
    assert ("scatter_dimension=0" in str(jax.make_jaxpr(run)(x))) == (rows == 4)


def test_the_ring_and_the_exchange():
    where, x = layout(context=8), jnp.arange(64.0).reshape(8, 8)

    def turned(x):
        return where.pass_on(x, "pos") + 0 * where.index("pos")

    axes = ("rank", "pos")
    np.testing.assert_array_equal(jax.jit(where.manual(turned, (axes,), axes))(x), np.roll(x, 1, axis=1))

    def dealt(x):
        assert x.shape == (8, 1)
        y = where.exchange(x, "pos", split=0, join=1)
        assert y.shape == (1, 8)
        return where.exchange(2 * y, "pos", split=1, join=0)

    np.testing.assert_array_equal(jax.jit(where.manual(dealt, (axes,), axes))(x), 2 * x)


def test_an_axis_of_somebody_else():
    """A program of several runs is split along an axis that no layout has: each run is whole, and sums its own."""
    alone, mesh, whole = single_device(), Mesh(np.array(jax.devices()[:2]), ("run",)), PartitionSpec()

    def f(x):
        assert alone.parts() == 1
        return alone.total_gradient(alone.total(x), whole, "float32")

    run = PartitionSpec("run")
    split = jax.shard_map(f, mesh=mesh, in_specs=run, out_specs=run, check_vma=False)
    np.testing.assert_array_equal(jax.jit(split)(np.arange(4.0)), np.arange(4.0))
