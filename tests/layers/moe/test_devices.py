"""Experts spread over devices: one device's numbers, whatever is chosen."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxlm.config import Balance, Capacity, Moe
from jaxlm.config.errors import UsageError
from jaxlm.layers.axes import logical_axes
from jaxlm.layers.moe.slots import dropless
from jaxlm.layers.names import flatten
from jaxlm.parallel.layout import TABLE, Layout
from tests.layers.moe.test_moe import EMBED, having, loss, mixture, towards
from tests.tiny import CALL, close, tokens

KIND = Moe(experts=8, top_k=2, width=12)
AXES = {
    "experts": ("expert",),
    "row": ("data", "expert"),
    "mlp": (),
    "embed": (),
    "tokens": ("context",),
    "pos": ("context",),
}
ROWS, LENGTH = 16, 6


def over(**sizes) -> Layout:
    sizes |= {"fsdp": 1}
    mesh = jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(jax.sharding.AxisType.Auto,) * len(sizes))
    held = {name: tuple(a for a in axes if a in sizes) for name, axes in (dict(TABLE) | AXES).items()}
    return Layout(mesh, tuple((name, axes if name in AXES else ()) for name, axes in held.items()))


def inputs(length=LENGTH):
    rng = np.random.default_rng(4)
    segments = np.where(np.arange(length) < 4, 1, 2) * np.ones((ROWS, 1), int)
    segments[::3, -2:] = 0
    x = rng.standard_normal((ROWS, length, EMBED)).astype(np.float32)
    return jnp.asarray(x), tokens(np.zeros_like(segments), segments)


def on_devices(model, x, told, layout):
    """(loss, (gradient of the model, of x)): each device computes its own tokens, and gradients are summed."""
    specs = jax.tree.map(lambda one: layout.stored_spec(one.axes, (8,) * len(one.axes)), logical_axes(model))
    at = PartitionSpec(*(dict(layout.table)[name] or None for name in ("row", "pos")))
    call = dataclasses.replace(CALL, layout=layout)

    def device(model, x, told):
        value, (slopes, dx) = jax.value_and_grad(functools.partial(loss, kind=None, call=call), (0, 1))(
            model, x, segments=told
        )
        names = tuple(layout.mesh.shape)

        def whole(slope, spec):
            return jax.lax.psum(slope, tuple(name for name in names if name not in jax.tree.leaves(tuple(spec))))

        return jax.lax.psum(value, names), (jax.tree.map(whole, slopes, specs), dx)

    rows = jax.tree.map(lambda _: at, told)
    run = jax.shard_map(
        device,
        mesh=layout.mesh,
        in_specs=(specs, at, rows),
        out_specs=(PartitionSpec(), (specs, at)),
        check_vma=False,
    )
    return jax.jit(run)(model, x, told)


def agree(model, layout, length=LENGTH):
    x, told = inputs(length)
    wanted = jax.jit(jax.value_and_grad(lambda m, x: loss(m, x, None, told), (0, 1)))(model, x)
    got = on_devices(model, x, told, layout)
    np.testing.assert_allclose(got[0], wanted[0], rtol=2e-6)
    close(got[1][0], wanted[1][0])
    np.testing.assert_allclose(got[1][1], wanted[1][1], atol=5e-6 * np.abs(wanted[1][1]).max())
    return got


BATCH = Balance(over="batch")
CASES = [
    (KIND, {"expert": 8}),
    (having(KIND, balance=BATCH), {"data": 2, "expert": 2, "context": 2}),
    (having(KIND, dispatch=Capacity(0.7)), {"data": 2, "expert": 4}),
    (having(KIND, dispatch=Capacity(0.6, rows=2), balance=BATCH), {"expert": 8}),
]


@pytest.mark.parametrize(("kind", "sizes"), CASES)
def test_devices_are_one(kind, sizes):
    """Values and gradients: experts over all devices, beside replicas, and rows cut over devices."""
    agree(mixture(kind), over(**sizes))


def test_all_tokens_to_one_expert_of_eight_devices():
    """Nothing is dropped: seven devices are idle, and the eighth takes every token of all of them."""
    kind = having(KIND, top_k=1)
    x, told = inputs()
    model = towards(kind, [5])
    x = x.at[..., 0].set(1.0)
    layout = over(expert=8)
    wanted = jax.jit(lambda m, x: jax.value_and_grad(lambda m, x: loss(m, x, None, told), (0, 1))(m, x))(model, x)
    got = on_devices(model, x, told, layout)
    np.testing.assert_allclose(got[0], wanted[0], rtol=2e-6)
    close(got[1][0], wanted[1][0])
    slopes = np.abs(got[1][0].experts.down.kernel).max(axis=(1, 2))
    assert (slopes > 0).tolist() == [expert == 5 for expert in range(8)]
    assert (np.abs(got[1][1]).max(-1)[np.asarray(told.segments) > 0] > 0).all(), "every token went through it"


@pytest.mark.parametrize(("experts", "bound"), [(8, 2), (2, 2), (1, 1)])
def test_the_buffer_is_as_large_as_stated(experts, bound):
    choices = jnp.asarray(np.random.default_rng(0).permuted(np.tile(np.arange(8), (20, 1)), axis=1)[:, :2])
    slots = dropless(jnp.where(choices < experts, choices, experts), experts)
    assert slots.choices.shape == (20 * bound,)
    assert int(slots.sizes.sum()) == int((choices < experts).sum())


@pytest.mark.parametrize(("sizes", "rows"), [({"expert": 8}, 4), ({"expert": 4, "context": 2}, 1)])
def test_a_capacity_is_never_a_device_s(sizes, rows):
    model = mixture(having(KIND, dispatch=Capacity(rows=rows)))
    with pytest.raises(UsageError, match=f"{rows} whole rows share a capacity, and a device holds"):
        on_devices(model, *inputs(), over(**sizes))


def test_the_comparison_can_fail():
    """A gradient that misses one device's share is noticed."""
    model = mixture(KIND)
    x, told = inputs()
    slopes = jax.jit(jax.grad(lambda m: loss(m, x, None, told)))(model)
    wrong = jax.tree.map(lambda leaf: leaf.at[-1:].multiply(0.999), slopes)
    with pytest.raises(AssertionError, match="off by"):
        close(wrong, slopes)
    assert "experts.gate.kernel" in flatten(slopes)
