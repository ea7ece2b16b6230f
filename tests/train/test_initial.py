"""Adapted models, and students beside their teacher: what a run keeps, and what it makes again."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config import Stream
from jaxlm.config.codec import what_hash
from jaxlm.config.errors import Failure, UsageError
from jaxlm.data import rows as row_data
from jaxlm.layers.names import flatten
from jaxlm.parallel.layout import single_device
from jaxlm.runs import directory
from jaxlm.runs.initial import pinned
from jaxlm.train import feed
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.fingerprint import fingerprint
from jaxlm.train.initial import initial_state, restored
from jaxlm.train.models import find_base, whole_model
from jaxlm.train.setup import make_setup
from tests.train.test_meshes import compiled, distances, documents
from tests.train.tiny import experiment

LORA = config.Lora(rank=2, dropout=0.1)
FLOAT32 = config.PRECISIONS["float32"]


def save(tree, path, state, step=0):
    directory.release(directory.open_run(tree, str(path)))
    with Checkpoints(path / "checkpoints") as checkpoints:
        checkpoints.save(step, state.saved(), {})
    return str(path)


def setup_of(tree, devices=1):
    return make_setup(tree, jax.devices()[:devices])


def trained(setup, steps, state=None, first=0):
    """(state, losses, gradients of the first step)."""
    rows = row_data.training(documents(), Stream(), batch=16, length=32, seed=0)
    step = compiled(setup, micro_batches=2, observe=lambda _, gradients, __: flatten(gradients))
    state, losses, gradients = initial_state(setup) if state is None else state, [], None
    for index in range(first, steps):
        state, metrics = step(state, feed.global_batch(rows, setup.call.layout, index))
        losses.append(float(metrics["loss"]))
        gradients = gradients or {name: np.asarray(metrics[name]) for name in flatten(state.model)}
    return state, losses, gradients


def tree(**changes):
    tiny = experiment()
    return dataclasses.replace(tiny, **({"train": dataclasses.replace(tiny.train, batch=16)} | changes))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run with a checkpoint: (its directory, its parameters by name)."""
    state = initial_state(setup_of(tree()))
    state = state.replace(model=jax.tree.map(lambda x: x + 0.01, state.model))
    path = save(tree(), tmp_path_factory.mktemp("runs") / "base", state)
    return path, flatten(state.model)


@pytest.fixture(scope="module")
def adapter(base):
    return pinned(tree(adapter=LORA, initial=base[0], train=dataclasses.replace(tree().train, batch=16, seed=3)))


@pytest.fixture(scope="module")
def run(adapter):
    """(setup, the state after 4 steps, losses, gradients of the first)."""
    setup = setup_of(adapter)
    return setup, *trained(setup, 4)


def test_only_the_adapter_is_trained_kept_and_has_moments(base, run):
    _, state, losses, gradients = run
    adapters = {name for name in flatten(state.model)}
    assert adapters
    assert all(name.endswith((".a", ".b")) for name in adapters)
    kept = {name.removeprefix("model.") for name in flatten(state.saved()) if name.startswith("model.")}
    assert gradients.keys() == adapters == kept
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state.model))
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state.optimizer) if leaf.ndim) == 2 * size
    kept = {name.replace(".base.", "."): leaf for name, leaf in flatten(state.frozen["model"]).items()}
    assert kept.keys() == base[1].keys()
    assert all((kept[name] == leaf).all() for name, leaf in base[1].items())
    assert losses[-1] < losses[0]


def test_it_begins_as_what_it_adapts(base, adapter):
    setup = setup_of(dataclasses.replace(adapter, adapter=config.NoAdapter()))
    plain = trained(setup, 1)[1]
    assert plain == trained(setup_of(dataclasses.replace(adapter, adapter=config.Lora(rank=2))), 1)[1]


def test_a_run_of_an_adapter_is_whole_again(adapter, run, tmp_path, base):
    _, state, _, _ = run
    path = save(adapter, tmp_path / "adapted", state, 4)
    model = whole_model(path, find_base(path, adapter), single_device(), FLOAT32)
    assert fingerprint(model) == fingerprint(state.whole())


def test_it_goes_on_bit_for_bit(adapter, run, tmp_path):
    setup, state, _, _ = run
    half, _, _ = trained(setup, 2)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(2, half.saved(), {})
        step, again, _ = restored(setup_of(adapter), checkpoints)
    assert step == 2
    assert fingerprint(again) == fingerprint(half)
    assert fingerprint(trained(setup, 4, again, 2)[0]) == fingerprint(state)


def test_meshes_agree(adapter, run):
    mesh = dataclasses.replace(adapter.where, mesh=config.Mesh(fsdp=2, tensor=2), micro_batches=2)
    _, losses, others = trained(setup_of(dataclasses.replace(adapter, where=mesh), 8), 4)
    _, _, expected, gradients = run
    np.testing.assert_allclose(losses, expected, rtol=2e-6)
    assert not {name: far for name, far in distances(gradients, others).items() if far > 1}


def test_the_base_may_move_beside_it(adapter, run, base, tmp_path):
    path = save(adapter, tmp_path / "adapted", run[1], 4)
    away = dataclasses.replace(adapter, initial=adapter.initial.replace(base[0], str(tmp_path / "gone" / "base")))
    with pytest.raises(UsageError, match=r"adapted holds the adapter of .*gone/base, which is neither there nor"):
        find_base(path, away)
    shutil.copytree(base[0], tmp_path / "base")
    model = whole_model(path, find_base(path, away), single_device(), FLOAT32)
    assert fingerprint(model) == fingerprint(run[1].whole())


def test_another_base_is_refused(adapter, run, base, tmp_path):
    """Trained further, it is not what the adapter was trained on."""
    path = save(adapter, tmp_path / "adapted", run[1], 4)
    shutil.copytree(base[0], tmp_path / "base")
    later = initial_state(setup_of(tree(initial=base[0])))
    with Checkpoints(tmp_path / "base/checkpoints") as checkpoints:
        checkpoints.save(1, later.replace(model=jax.tree.map(lambda x: x * 2, later.model)).saved(), {})
    moved = dataclasses.replace(adapter, initial=adapter.initial.replace(base[0], str(tmp_path / "base")))
    with pytest.raises(Failure, match=r"base holds the parameters \w+ at step 1, not \w+"):
        whole_model(path, moved, single_device(), FLOAT32)


def test_another_run_needs_nothing_but_itself(base, tmp_path):
    """What a run of all parameters began from may be gone."""
    own = tree(initial=str(tmp_path / "gone"))
    assert find_base(base[0], own) == own


def test_a_prefix_is_no_part_of_a_weight(base, tmp_path):
    prefixed = pinned(tree(adapter=config.PrefixTuning(4), initial=base[0]))
    path = save(prefixed, tmp_path / "prefixed", initial_state(setup_of(prefixed)))
    assert whole_model(path, find_base(path, prefixed), single_device(), FLOAT32).blocks.period[0].attention.prefix
    with pytest.raises(UsageError, match="prefixed has prefix_tuning, which is no part of any weight"):
        initial_state(setup_of(tree(initial=path)))


def test_an_adapter_that_goes_on_as_a_whole_model_is_merged(adapter, run, tmp_path):
    path = save(adapter, tmp_path / "adapted", run[1], 4)
    state = initial_state(setup_of(tree(initial=path)))
    merged = flatten(state.model)
    assert not any(name.endswith(".a") for name in merged)
    expected = run[1].whole().blocks.period[0].mlp.up.dense()
    np.testing.assert_array_equal(merged["blocks.period.0.mlp.up.kernel"], expected)


def test_a_student_is_what_is_kept_of_its_teacher(base):
    cut = config.surgery.Cut(layers=(1,), width=8)
    model = config.surgery.cut(tree().model, cut)
    state = initial_state(setup_of(pinned(tree(model=model, cut=cut, initial=base[0]))))
    kept = flatten(state.model)
    key = "blocks.period.0.attention.key.kernel"
    np.testing.assert_array_equal(kept[key], base[1][key][1:])
    assert kept["blocks.period.0.mlp.up.kernel"].shape == (1, 16, 8)


def test_what_is_trained_beside_a_student_is_thrown_away(base, tmp_path):
    student = dataclasses.replace(tree().model, embed=8, layers=1)
    features = (config.HiddenStates(layers=config.Last(), projection="linear"),)
    taught = pinned(tree(model=student, teacher=base[0], objective=config.Distillation(features=features)))
    state, losses, _ = trained(setup_of(taught), 3)
    assert losses[-1] < losses[0]
    assert [name for name in flatten(state.model) if name.startswith("projections")] == ["projections.0.kernel"]
    path = save(taught, tmp_path / "student", state, 3)
    model = whole_model(path, taught, single_device(), FLOAT32)
    assert fingerprint(model) == fingerprint(state.model.model)


@pytest.fixture(scope="module")
def taught(base):
    student = dataclasses.replace(tree().model, embed=8, layers=1)
    return pinned(tree(model=student, teacher=base[0], objective=config.Distillation()))


@pytest.mark.parametrize("mesh", [(config.Mesh(), 1), (config.Mesh(fsdp=2, tensor=2), 8)], ids=["1", "8"])
def test_a_teacher_is_there_whole_and_is_not_kept(taught, base, mesh):
    placed = dataclasses.replace(taught, where=dataclasses.replace(taught.where, mesh=mesh[0]))
    setup = setup_of(placed, mesh[1])
    state = initial_state(setup)
    assert fingerprint(state.frozen["teacher"]) == fingerprint(
        whole_model(base[0], tree(), single_device(), FLOAT32)
    )
    assert jax.tree.map(jnp.shape, state.frozen) == jax.tree.map(jnp.shape, setup.abstract.frozen)
    assert not any("teacher" in name for name in flatten(state.saved()))
    assert trained(setup, 2)[1][1] > 0


def test_a_teacher_is_named_by_what_it_is(taught, base, tmp_path):
    shutil.copytree(base[0], tmp_path / "copy")
    elsewhere = dataclasses.replace(taught, teacher=taught.teacher.replace(base[0], str(tmp_path / "copy")))
    assert what_hash(elsewhere) == what_hash(taught) != what_hash(dataclasses.replace(taught, teacher=""))
    with pytest.raises(UsageError, match="teacher nowhere: no such run or model"):
        pinned(dataclasses.replace(taught, teacher="nowhere"))
