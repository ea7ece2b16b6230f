"""A student that learns of what its teacher said before, beside one that asks it at each step."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.objective_check import objective_problems
from jaxlm.data import likeliest as files
from jaxlm.data import rows as row_data
from jaxlm.data.prepare import Prepared
from jaxlm.runs.initial import pinned
from jaxlm.tokenizers.bytes import ByteTokenizer
from jaxlm.train import feed, initial, likeliest
from jaxlm.train.initial import initial_state
from tests.tiny import close
from tests.train.test_initial import save, setup_of, tree
from tests.train.test_meshes import documents

VOCAB = 264
HEARD = documents()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run of a larger model."""
    larger = tree(model=dataclasses.replace(tree().model, layers=1, embed=32, dropout=0.0))
    state = initial_state(setup_of(larger))
    state = state.replace(model=jax.tree.map(lambda x: 1.5 * x, state.model))
    return save(larger, tmp_path_factory.mktemp("runs") / "teacher", state)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAXLM_CACHE", str(tmp_path_factory.getbasetemp() / "said"))


def student(teacher, count, **changes):
    taught = config.Distillation(config.Autoregressive(chunks=3), config.ForwardKl(), likeliest=count)
    changes = {"packing": config.BestFit(), "model": dataclasses.replace(tree().model, dropout=0.0)} | changes
    return pinned(tree(objective=taught, teacher=teacher, **changes))


def heard(setup, say=str):
    """The dataset with what the teacher says of it."""
    prepared = Prepared(HEARD, HEARD, ByteTokenizer(), {}, {}, {})
    return likeliest.written_down(setup, prepared, say).train


def value_and_gradient(setup, dataset, step=0):
    packing, train = setup.experiment.packing, setup.experiment.train
    rows = row_data.training(dataset, packing, batch=train.batch, length=train.length, seed=0)
    state = initial_state(setup)

    def loss(model):
        batch = setup.objective.prepare(feed.global_batch(rows, setup.call.layout, step), jax.random.key(0))
        weights = setup.objective.weights(batch)
        sums, _ = setup.objective.totals(state.replace(model=model).whole(), batch, None, setup.call, state.frozen)
        return sums["divergence"] / weights["divergence"]

    return jax.jit(jax.value_and_grad(loss))(state.model)


def test_all_of_a_distribution_is_what_the_teacher_says_at_each_step(teacher):
    """In rows of whole documents; the controls are of fewer tokens, and of rows that cut documents elsewhere."""
    asked, told = setup_of(student(teacher, 0)), setup_of(student(teacher, VOCAB))
    assert "teacher" in asked.abstract.frozen
    assert told.abstract.frozen.keys() == {"model"}
    wanted, gradient = value_and_gradient(asked, HEARD)
    found = heard(told)
    got, other = value_and_gradient(told, found)
    np.testing.assert_allclose(got, wanted, rtol=2e-6)
    close(other, gradient)
    few = setup_of(student(teacher, 8))
    assert value_and_gradient(few, heard(few))[0] < 0.9 * wanted
    stream = [setup_of(student(teacher, count, packing=config.Stream())) for count in (0, VOCAB)]
    online, offline = value_and_gradient(stream[0], HEARD)[0], value_and_gradient(stream[1], heard(stream[1]))[0]
    assert 1e-5 < abs(offline / online - 1) < 0.1


def test_written_once_for_all_students(teacher, monkeypatch):
    """Whose shape and seed are their own; another number of tokens, or length of rows, is written anew."""
    lines = []
    heard(setup_of(student(teacher, 5)), lines.append)
    assert "writing the 5 likeliest tokens of each of" in lines[0]
    written = len(lines)
    with monkeypatch.context() as patched:
        patched.setattr(likeliest, "teacher", lambda setup: pytest.fail("the teacher was loaded again"))
        wide = dataclasses.replace(tree().model, embed=24, dropout=0.0)
        train = dataclasses.replace(tree().train, seed=7)
        first = heard(setup_of(student(teacher, 5, model=wide, train=train)), lines.append)
    assert len(lines) == written
    longer = dataclasses.replace(tree().train, length=64)
    other = heard(setup_of(student(teacher, 5, train=longer)), lines.append)
    assert len(lines) > written
    prints = {
        row_data.training(one, config.BestFit(), batch=2, length=32, seed=0).fingerprint for one in (first, other)
    }
    assert len(prints) == 2


def test_stopped_and_gone_on_with_by_another_batch(teacher, tmp_path, monkeypatch):
    """What is done is counted in rows."""
    wanted = heard(setup_of(student(teacher, 5))).likeliest
    monkeypatch.setenv("JAXLM_CACHE", str(tmp_path))
    monkeypatch.setattr(files, "EVERY", -1.0)
    setup, said = setup_of(student(teacher, 5)), likeliest._said

    def stopped(*arguments):
        for step, one in enumerate(said(*arguments)):
            if step == 5:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(likeliest, "_said", stopped)
    with pytest.raises(KeyboardInterrupt):
        heard(setup)
    firsts = []
    monkeypatch.setattr(likeliest, "_said", lambda *given: firsts.append(given[4]) or said(*given))
    train = dataclasses.replace(tree().train, batch=8)
    found = heard(setup_of(student(teacher, 5, train=train))).likeliest
    assert firsts == [5 * 16 // 8], "both parts are the same documents: the second is there"
    np.testing.assert_allclose(found.logs, wanted.logs, atol=2e-6)
    np.testing.assert_array_equal(found.tokens, wanted.tokens)


def test_eight_devices_write_what_one_does(teacher, tmp_path, monkeypatch):
    alone = heard(setup_of(student(teacher, 5))).likeliest
    monkeypatch.setenv("JAXLM_CACHE", str(tmp_path))
    where = dataclasses.replace(tree().where, mesh=config.Mesh(fsdp=2, tensor=2, context=2))
    spread = heard(setup_of(student(teacher, 5, where=where), devices=8)).likeliest
    np.testing.assert_allclose(spread.logs, alone.logs, atol=5e-6)
    assert np.mean(spread.tokens == alone.tokens) > 0.999


def test_a_teacher_of_fewer_tokens(teacher):
    with pytest.raises(UsageError, match=r"objective\.likeliest is 265: student and teacher share 264 tokens"):
        heard(setup_of(student(teacher, 265, model=dataclasses.replace(tree().model, vocab=300))))


def test_what_a_step_is_given(teacher):
    """What the teacher said of a token stands beside it, and no teacher is in a state that goes on."""
    setup = setup_of(student(teacher, 5))
    assert initial._frozen(setup).keys() == {"model"}
    found = heard(setup)
    rows = row_data.training(found, config.BestFit(), batch=16, length=32, seed=0)
    batch = feed.global_batch(rows, setup.call.layout, 1)
    assert batch.extra["likely"].shape == batch.extra["likely_tokens"].shape == (16, 32, 5)
    row, place = 3, int(np.flatnonzero(np.asarray(batch.weights[3]))[2])
    document, at = int(batch.documents[row, place]) % found.documents, int(batch.inputs.positions[row, place])
    np.testing.assert_array_equal(
        batch.extra["likely_tokens"][row, place], found.likeliest.tokens[found.offsets[document] + at]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": config.MaskedLm()}, "MaskedLm shows a teacher other rows each time; use 0"),
        ({"features": (config.HiddenStates(),)}, "objective.features are inside of the teacher"),
        ({"policy": config.OnPolicy(), "labels": 0.0}, "nothing was written down of texts that the student is yet"),
        ({"response": config.NoResponse()}, "objective.response asks for no distribution: use 0"),
        ({"response": config.SoftLabels(2.0)}, "a part of a distribution cannot be softened; use 1"),
        ({"response": config.SoftLabels(1.0)}, None),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_written_down(changes, message):
    objective = config.Distillation(**({"response": config.ForwardKl(), "likeliest": 8} | changes))
    model = config.Encoder() if "base" in changes else config.Decoder()
    found = list(objective_problems(objective, model))
    assert [message in one for one in found] == ([True] if message else [])
