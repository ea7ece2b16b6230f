"""A trained classifier's labels, against the objective that trains it."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config import Labels, Records
from jaxlm.config.errors import UsageError
from jaxlm.data.labels import between
from jaxlm.evaluate.ask import ask
from jaxlm.evaluate.labels import judged, label_log_probabilities, numbers
from jaxlm.evaluate.results import Subject
from jaxlm.layers.contracts import Batch
from jaxlm.objectives.classification import Classification
from jaxlm.tokenizers.bytes import ByteTokenizer
from tests.evaluate.subjects import KINDS, texts
from tests.evaluate.test_vector_tasks import ENCODER
from tests.tiny import CALL, random_model, tokens

CLASSIFIER = config.Classifier(3, "first")
TOKENIZER = ByteTokenizer()


def subject(of="first", types=2):
    kind = dataclasses.replace(ENCODER, types=types, classifier=dataclasses.replace(CLASSIFIER, of=of))
    return Subject(random_model(kind), TOKENIZER, CALL, 64)


@pytest.mark.parametrize(("of", "pairs"), [("first", 2), ("mean", 1), ("last", 1)])
def test_the_loss_is_that_of_training(of, pairs):
    """Forty texts or pairs in batches by length; each by itself through the objective."""
    found = subject(of)
    given = list(zip(*(texts(40, seed=i, longest=20) for i in range(pairs))))
    gold = np.arange(40) % 3
    log_p, notes = label_log_probabilities(given, found)
    assert notes == ()
    objective = Classification(TOKENIZER.eos, of)
    for number in (0, 39):
        ids = between(TOKENIZER, [TOKENIZER.encode(one) for one in given[number]])
        inputs = tokens([ids])
        at = np.full((1, len(ids)), -1)
        at[0, 0] = gold[number]
        zeros = np.zeros((1, len(ids)), np.float32)
        batch = Batch(inputs, None, inputs.ids, zeros, np.zeros(1, np.int32), inputs.ids, {"labels": at})
        batch = objective.prepare(jax.tree.map(jax.numpy.asarray, batch), jax.random.key(0))
        totals, _ = objective.totals(found.model, batch, None, CALL, {})
        assert totals["classification"] == pytest.approx(-log_p[number, gold[number]], abs=2e-5)
    if pairs == 2:
        one = dataclasses.replace(found.model.config, types=1)
        untyped = dataclasses.replace(found, model=dataclasses.replace(found.model, config=one))
        other, _ = label_log_probabilities(given, untyped)
        assert np.abs(other - log_p).max() > 1e-3


def test_results_are_those_of_the_probabilities(tmp_path):
    rows = [{"text": one, "label": int(i % 3)} for i, one in enumerate(texts(90, longest=80))]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = [{"text": one, "label": int(i % 3)} for i, one in enumerate(texts(60, seed=1, longest=80))]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*rows[:7], *more)))
    task = Labels(data=Records("rows.jsonl"), calibration=Records("more.jsonl"))
    result = ask(task, tmp_path).run(subject())
    found = {one.name: one for one in result.metrics}
    log_p = np.array([item["log_probabilities"] for item in result.items])
    gold = np.arange(90) % 3
    assert found["accuracy"].value == np.mean(log_p.argmax(axis=1) == gold)
    assert found["loss"].value == pytest.approx(-log_p[np.arange(90), gold].mean())
    assert sum(one["items"] for one in result.groups.values()) == 90
    right = sum(one["items"] * one["accuracy"] for one in result.groups.values())
    assert right / 90 == pytest.approx(found["accuracy"].value)
    assert found["loss_tempered"].value < found["loss"].value
    assert found["loss"].low < found["loss"].value < found["loss"].high
    assert any("texts were longer than 64 tokens, and cut" in note for note in result.notes)
    assert any("temperature" in note and "60 other items" in note for note in result.notes)
    left = "7 of 67 texts of calibration are among those that are judged, and were left out of it"
    assert result.notes[0] == left
    with pytest.raises(UsageError, match="labels: all 90 texts of calibration are among those that are judged"):
        ask(dataclasses.replace(task, calibration=Records("rows.jsonl")), tmp_path)


def test_what_is_said_of_probabilities():
    """Against scikit-learn; a model that is sure and wrong is far off."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 500)
    gold = np.array([rng.choice(4, p=one) for one in p])
    found = {one.name: one.value for one in judged(np.log(p), gold)}
    chosen = p.argmax(axis=1)
    wanted = {
        "accuracy": metrics.accuracy_score(gold, chosen),
        "macro_f1": metrics.f1_score(gold, chosen, average="macro"),
        "matthews": metrics.matthews_corrcoef(gold, chosen),
        "loss": metrics.log_loss(gold, p),
        "brier": metrics.brier_score_loss(gold, p, scale_by_half=False),
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-9)
    assert max(found["ece"], found["ece_mass"]) < 0.1
    sure = 0.99 * np.eye(4)[(gold + 1) % 4] + 0.0025
    assert judged(np.log(sure), gold)[5].value > 0.98


def test_labels_are_named():
    np.testing.assert_array_equal(numbers(["b", "a"], ["a", "b"], 2), [1, 0])
    np.testing.assert_array_equal(numbers(["2", "0"], (), 3), [2, 0])
    for given, names, classes in ((["c"], ["a", "b"], 2), (["3"], (), 3), (["c"], ["a", "b", "c"], 2)):
        with pytest.raises(UsageError, match=f"label is '{given[0]}', and the model's {classes} are"):
            numbers(given, names, classes)


def test_the_run_names_labels(tmp_path, monkeypatch):
    rows = [{"text": "a", "label": "no"}, {"text": "b", "label": "yes"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ask(Labels(data=Records("rows.jsonl")), tmp_path)
    named = dataclasses.replace(subject(), names=("yes", "no", "perhaps"))
    assert [item["label"] for item in asked.run(named).items] == [1, 0]
    # Before a text is read.
    monkeypatch.setattr("jaxlm.evaluate.labels.label_log_probabilities", lambda *_: pytest.fail("too late"))
    with pytest.raises(UsageError, match="label is 'no'"):
        asked.run(subject())


@pytest.mark.parametrize("model", [ENCODER, KINDS["decoder"], KINDS["rwkv7"]])
def test_models_without_a_classifier_are_refused(model):
    with pytest.raises(UsageError, match="no classifier of texts"):
        label_log_probabilities([("a",)], Subject(random_model(model), TOKENIZER, CALL, 64))
    with pytest.raises(UsageError, match="no classifier of texts"):
        label_log_probabilities([("a",)], subject("tokens"))
