"""The one table from logical axes to mesh axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxlm.config.errors import UsageError
from jaxlm.parallel.layout import TABLE, Layout, single_device
from tests.tiny import layout

CUBE = layout(fsdp=2, tensor=2)


@pytest.mark.parametrize(
    ("axes", "shape", "spec"),
    [
        (("embed", "heads", "head"), (16, 4, 8), PartitionSpec(("fsdp",), ("tensor",), None)),
        (("embed", "mlp"), (3, 16, 32), PartitionSpec(None, ("fsdp",), ("tensor",))),
        (("row", "pos", "features"), (8, 5, 3), PartitionSpec(("data", "fsdp"), None, None)),
        (("vocab", "embed"), (64, 16), PartitionSpec(("tensor",), ("fsdp",))),
        ((), (7,), PartitionSpec(None)),
    ],
)
def test_spec(axes, shape, spec):
    assert CUBE.spec(axes, shape) == spec


@pytest.mark.parametrize(
    ("axes", "shape", "message"),
    [
        (("embed", "hands"), (16, 4), r"'hands' is not in the layout's table \(embed, "),
        (("heads", "mlp"), (4, 32), r"mesh axis 'tensor' would shard two dimensions of \('heads', 'mlp'\)"),
        (("row", "embed"), (8, 16), "mesh axis 'fsdp' would shard two dimensions"),
        (("row",), (6,), r"dimension 6 of \('row',\) .* into 4 shards \(data x fsdp\): use 4 or 8"),
        (("mlp",), (1,), r"dimension 1 .* into 2 shards \(tensor\): use 2, or fewer"),
        (("embed", "mlp"), (16,), "more axes than"),
    ],
)
def test_errors_have_the_numbers(axes, shape, message):
    with pytest.raises(UsageError, match=message):
        CUBE.spec(axes, shape)


def test_sizes():
    assert [CUBE.shards(axis) for axis in ("row", "embed", "heads", "pos")] == [4, 2, 2, 1]


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


def test_constrain_places_the_shards():
    x = jax.jit(lambda x: CUBE.constrain(2 * x, ("row", "pos", "mlp")))(jnp.ones((8, 3, 32)))
    assert x.addressable_shards[0].data.shape == (2, 3, 16)


def test_gather_and_its_transpose():
    """A parameter is whole over the storage axis in use; its gradient comes back in shards."""
    axes = ("embed", "mlp")
    w = jax.device_put(jnp.arange(32.0).reshape(8, 4), CUBE.sharding(axes, (8, 4)))
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
    assert mine.spec(("embed", "mlp"), (16, 32)) == PartitionSpec(("fsdp",), ("data",))
