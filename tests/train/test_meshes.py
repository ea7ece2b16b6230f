"""The same training on four meshes: the same state read from disk, the same gradients, the same losses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Adafactor, Lion, Mesh, Muon, Stream
from jaxlm.data import rows as row_data
from jaxlm.data.dataset import in_memory
from jaxlm.layers.names import flatten
from jaxlm.train import feed
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.fingerprint import digest, fingerprint
from jaxlm.train.initial import initial_state
from jaxlm.train.setup import make_setup
from jaxlm.train.step import make_step
from tests.train.tiny import experiment

STEPS = 20
MESHES = {
    "1": (Mesh(), 1, 2),
    "replica 2, data 4": (Mesh(replica=2), 8, 2),
    "fsdp 8": (Mesh(fsdp=8), 8, 1),
    "data 2, fsdp 2, tensor 2": (Mesh(fsdp=2, tensor=2), 8, 4),
    "fsdp 2, context 4": (Mesh(fsdp=2, context=4), 8, 2),
    "data 2, context 2, tensor 2": (Mesh(context=2, tensor=2), 8, 2),
}
"""Mesh, devices, micro-batches."""
AT_NIGHT = ("fsdp 8", "fsdp 2, context 4", "replica 2, data 4")
"""Whose axes the others have too."""


def documents():
    draw = np.random.default_rng(0)
    arrays = [np.concatenate([[2], draw.integers(4, 40, n), [3]]) for n in draw.integers(5, 80, 200)]
    return in_memory(arrays, bytes=sum(map(len, arrays)), vocab=264, pad=0)


def make(mesh: str, **changes):
    """(setup, micro-batches) of the tiny experiment in float32 with dropout, on a mesh."""
    shape, devices, micro = MESHES[mesh]
    tiny = experiment()
    tiny = dataclasses.replace(
        tiny,
        **changes,
        train=dataclasses.replace(tiny.train, batch=16),
        where=dataclasses.replace(tiny.where, mesh=shape, micro_batches=micro),
    )
    return make_setup(tiny, jax.devices()[:devices]), micro


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """(Directory with the initial state saved from one device, digest of it)."""
    directory = tmp_path_factory.mktemp("start")
    state = initial_state(make("1")[0])
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(0, state, {})
    return directory, digest(fingerprint(state))


def load(directory, setup):
    with Checkpoints(directory, read_only=True) as checkpoints:
        return checkpoints.restore(setup.abstract)[1]


@pytest.fixture(scope="module")
def trained(start):
    """`trained(mesh)`: (final state, losses, gradients of the first step by name), made once."""
    made = {}

    def train(mesh: str):
        if mesh not in made:
            made[mesh] = _train(mesh, start)
        return made[mesh]

    return train


def compiled(setup, **options):
    return jax.jit(
        make_step(setup.objective, setup.optimizer, setup.call, seed=0, clip=1.0, **options),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, setup.abstract), None),
    )


def _train(mesh, start):
    setup, micro = make(mesh)
    directory, expected = start
    state = load(directory, setup)
    assert digest(fingerprint(state)) == expected
    rows = row_data.training(documents(), Stream(), batch=16, length=32, seed=0)
    step = compiled(setup, micro_batches=micro, observe=lambda _, gradients, __: flatten(gradients))
    losses, first = [], None
    for index in range(STEPS):
        state, metrics = step(state, feed.global_batch(rows, setup.call.layout, index))
        metrics = jax.device_get(metrics)
        losses.append(float(metrics["loss"]))
        first = first or {name: metrics[name] for name in flatten(state.model)}
    return state, losses, first


def distances(one, other) -> dict[str, float]:
    """Each leaf's difference, in units of what is allowed."""
    norm = np.linalg.norm
    whole = np.sqrt(sum(norm(leaf) ** 2 for leaf in one.values()))
    return {name: norm(one[name] - other[name]) / max(norm(one[name]), 1e-3 * whole) / 5e-6 for name in one}


@pytest.mark.parametrize(
    "mesh",
    [pytest.param(mesh, marks=pytest.mark.nightly if mesh in AT_NIGHT else ()) for mesh in MESHES if mesh != "1"],
)
def test_meshes_agree(trained, mesh):
    _, expected, gradients = trained("1")
    _, losses, others = trained(mesh)
    assert losses[-1] < losses[0] - 0.5
    np.testing.assert_allclose(losses, expected, rtol=2e-6)
    far = {name: far for name, far in distances(gradients, others).items() if far > 1}
    assert not far


def test_the_distance_sees_a_wrong_gradient(trained):
    _, _, gradients = trained("1")
    for name in gradients:
        wrong = gradients | {name: gradients[name] * (1 + 1e-4)}
        assert distances(gradients, wrong)[name] > 10 or np.linalg.norm(gradients[name]) < 1e-3


@pytest.mark.parametrize("there", ["1", "fsdp 8"])
def test_a_checkpoint_moves_between_meshes(trained, tmp_path, there):
    state, _, _ = trained("data 2, fsdp 2, tensor 2")
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(STEPS, state, {})
    setup, _ = make(there)
    read = load(tmp_path, setup)
    assert fingerprint(read) == fingerprint(state)
    assert jax.tree.map(lambda leaf: leaf.sharding, read) == jax.tree.map(
        lambda leaf: leaf.sharding, setup.abstract
    )
    changed = dataclasses.replace(read, step=read.step + jnp.int32(1))
    assert digest(fingerprint(changed)) != digest(fingerprint(state))


def test_the_start_is_the_same_on_any_mesh(start):
    state = initial_state(make("data 2, fsdp 2, tensor 2")[0])
    assert digest(fingerprint(state)) == start[1]


@pytest.mark.parametrize("optimizer", [Adafactor(), Lion(), Muon()], ids=lambda kind: type(kind).__name__)
def test_any_optimizer_is_sharded_saved_and_resumed(optimizer, tmp_path):
    setup, _ = make("fsdp 8", optimizer=optimizer)
    rows = row_data.training(documents(), Stream(), batch=16, length=32, seed=0)
    step = compiled(setup)
    start = initial_state(setup)
    sharded = [leaf for leaf in jax.tree.leaves(start.optimizer) if not leaf.sharding.is_fully_replicated]
    assert sharded or isinstance(optimizer, Adafactor)  # Its moments are vectors.
    state, _ = step(start, feed.global_batch(rows, setup.call.layout, 0))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
    batch = feed.global_batch(rows, setup.call.layout, 1)
    (straight, _), (resumed, _) = step(state, batch), step(load(tmp_path, setup), batch)
    assert fingerprint(straight) == fingerprint(resumed)
