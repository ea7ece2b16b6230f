"""A mixture of experts trains alike on every mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Balance, Capacity, Dropless, Mesh, Moe, Stream
from jaxlm.data import rows as row_data
from jaxlm.layers.names import flatten
from jaxlm.train import feed
from jaxlm.train.initial import initial_state
from jaxlm.train.setup import make_setup
from tests.train.test_meshes import compiled, distances, documents
from tests.train.tiny import experiment

STEPS = 3
SEED = 1
ROWS = row_data.training(documents(), Stream(), batch=16, length=32, seed=0)
MESHES = {
    "replica 2, expert 4": (Mesh(replica=2, expert=4), 2),
    "fsdp 2, expert 2, context 2": (Mesh(fsdp=2, expert=2, context=2), 1),
    "expert 2, tensor 2": (Mesh(expert=2, tensor=2), 1),
}
"""Mesh of eight devices, micro-batches."""


def make(mesh: Mesh, devices: int, micro: int, dispatch):
    tiny = experiment()
    mixture = Moe(experts=8, top_k=2, width=24, shared=16, dispatch=dispatch, balance=Balance(0.01), router_z=1e-3)
    model = dataclasses.replace(tiny.model, block=dataclasses.replace(tiny.model.block, mlp=mixture))
    where = dataclasses.replace(tiny.where, mesh=mesh, micro_batches=micro)
    tiny = dataclasses.replace(
        tiny, model=model, train=dataclasses.replace(tiny.train, batch=16, seed=SEED), where=where
    )
    return make_setup(tiny, jax.devices()[:devices])


def train(mesh: Mesh, devices: int, micro: int, dispatch):
    """(Metrics of each step, gradients of the first by name)."""
    setup = make(mesh, devices, micro, dispatch)
    state = initial_state(setup)
    step = compiled(setup, micro_batches=micro, observe=lambda _, gradients, __: flatten(gradients))
    found, first = [], None
    for index in range(STEPS):
        state, metrics = step(state, feed.global_batch(ROWS, setup.call.layout, index))
        metrics = jax.device_get(metrics)
        first = first or {name: metrics[name] for name in flatten(state.model)}
        found.append({name: float(metrics[name]) for name in ("loss", "load_balance", "router_z", "dropped")})
    return found, first


@pytest.fixture(scope="module")
def one():
    """`one(dispatch)`: what one device finds, made once."""
    return functools.cache(lambda dispatch: train(Mesh(), 1, 2, dispatch))


@pytest.mark.parametrize(
    ("mesh", "dispatch"),
    [
        *(
            pytest.param(mesh, Dropless(), marks=pytest.mark.nightly if "replica" in mesh else ())
            for mesh in MESHES
        ),
        ("replica 2, expert 4", Capacity(1.0)),
        pytest.param("expert 2, tensor 2", Capacity(1.0), marks=pytest.mark.nightly),
    ],
)
def test_meshes_agree(one, mesh, dispatch):
    expected, gradients = one(dispatch)
    found, others = train(MESHES[mesh][0], 8, MESHES[mesh][1], dispatch)
    for name in expected[0]:
        np.testing.assert_allclose([m[name] for m in found], [m[name] for m in expected], rtol=2e-6, err_msg=name)
    assert (expected[0]["dropped"] > 0) == isinstance(dispatch, Capacity)
    far = {name: far for name, far in distances(gradients, others).items() if far > 1}
    assert not far


def test_no_choice_is_a_near_tie():
    """The gradients' comparison would otherwise be one of roundings."""
    setup = make(Mesh(), 1, 1, Dropless())
    model, call = initial_state(setup).whole(), dataclasses.replace(setup.call, taps=("router",))
    batch = feed.global_batch(ROWS, setup.call.layout, 0)
    router = jax.jit(lambda model, batch: model(batch.inputs, call).taps["router"])(model, batch)
    ordered = jnp.sort(router, axis=-1)[..., ::-1]
    gaps = jnp.where(batch.inputs.segments[None] > 0, ordered[..., 1] - ordered[..., 2], 1.0)
    assert gaps.min() >= 1e-4
