"""Labels by a trained classifier, and what there is to say of labels and their probabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.config.model import Classifier
from jaxlm.config.vector_tasks import Labels
from jaxlm.data.labels import between, cut
from jaxlm.evaluate import calibration
from jaxlm.evaluate.classification import f1, matthews
from jaxlm.evaluate.labeled import Labeled, labeled, unseen
from jaxlm.evaluate.results import Asked, Metric, Result, Subject, around, digest, ratio, share
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.layers.logprob import log_probabilities
from jaxlm.models.pooling import pooled
from jaxlm.objectives.classification import ends_before
from jaxlm.sampling.embed import at_first, batches

Scores = Float[np.ndarray, "item classes"]
Gold = Int[np.ndarray, " item"]
Texts = list[tuple[str, ...]]


def ask(task: Labels, root: Path) -> Asked:
    """The texts and their labels. Raises UsageError as `records.read` and `template.render` do."""
    templates = [task.text, *([task.second] if task.second else [])]
    given, apart, left = labeled(templates, task.label, task.data, root), None, ()
    if task.calibration.path:
        apart, left = unseen(labeled(templates, task.label, task.calibration, root), given, "calibration")
    name = digest("labels", task.text, task.second, task.label, task.names)

    def run(subject: Subject) -> Result:
        found = measure(task, name, given, apart, subject)
        return dataclasses.replace(found, notes=(*left, *found.notes))

    return Asked(task, name, len(given.texts), run)


def measure(task: Labels, name: str, given: Labeled, apart: Labeled | None, subject: Subject) -> Result:
    """All texts, and for the temperature those of `calibration`; labels are looked up before a text is read."""
    names, classes = task.names or subject.names, _classifier(subject).labels
    gold = numbers(given.labels, names, classes)
    fitted = None if apart is None else numbers(apart.labels, names, classes)
    log_p, notes = label_log_probabilities(given.texts, subject)
    metrics = judged(log_p, gold)
    if apart is not None:
        others, _ = label_log_probabilities(apart.texts, subject)
        heat = calibration.temperature(others, fitted)
        after = calibration.normalized(log_p / heat)
        metrics += tuple(
            Metric(f"{one.name}_tempered", *(one.value, one.low, one.high, one.n))
            for one in judged(after, gold)
            if one.name in ("loss", "brier", "ece", "ece_mass")
        )
        notes = (*notes, f"temperature {heat:.3f}, fitted to {len(others)} other items")
    told = [
        {"hash": digest(*text), "label": int(label), "log_probabilities": [float(one) for one in row]}
        for text, label, row in zip(given.texts, gold, log_p)
    ]
    return Result(task, name, metrics, told, bins(log_p, gold), notes)


def numbers(labels: Sequence[str], names: Sequence[str], classes: int) -> Gold:
    """Labels as the model counts them. Raises UsageError for one that is not known."""
    known = {name: number for number, name in enumerate(names or map(str, range(classes)))}
    for label in labels:
        if label not in known or known[label] >= classes:
            listed = ", ".join(list(known)[:8])
            raise UsageError(
                f"an item's label is {label!r}, and the model's {classes} are {listed}: name them all in `names`"
            )
    return np.array([known[label] for label in labels])


def label_log_probabilities(texts: Texts, subject: Subject) -> tuple[Scores, tuple[str, ...]]:
    """Log-probabilities in nats of the classifier's labels for each text or pair, written as in training.

    What is longer than the rows of training is cut, as there. Raises UsageError for a model that has no classifier
    of texts.
    """
    kind = _classifier(subject)
    tokenizer, rows, shorter = subject.tokenizer, [], 0
    encoded = iter(tokenizer.encode_batch([one for each in texts for one in each]))
    for each in texts:
        ids = [next(encoded) for _ in each]
        kept = cut(ids, max(subject.length - 1 - len(ids), 0))
        shorter += sum(map(len, kept)) < sum(map(len, ids))
        rows.append(between(tokenizer, kept))
    found = np.empty((len(rows), kind.labels))
    for places, tokens in batches(rows, tokenizer.pad, getattr(subject.model.config, "position", None)):
        found[places] = np.asarray(_classified(subject.model, tokens, tokenizer.eos, subject.call))[: len(places)]
    notes = (
        (f"{shorter} of {len(texts)} texts were longer than {subject.length} tokens, and cut",) if shorter else ()
    )
    return found, notes


def _classifier(subject: Subject) -> Classifier:
    """The model's. Raises UsageError where it has none of texts."""
    kind = getattr(subject.model.config, "classifier", None)
    if getattr(subject.model, "classifier", None) is None or kind.of == "tokens":
        raise UsageError(
            "the model has no classifier of texts: train one by the objective classification, or probe"
        )
    return kind


@jax.jit(static_argnames=("eos", "call"))
def _classified(model: Any, tokens: Tokens, eos: int, call: Call) -> Float[Array, "row labels"]:
    if getattr(model, "types", None) is not None and model.config.types > 1:
        tokens = tokens.replace(types=(ends_before(tokens, eos) > 0).astype(tokens.ids.dtype))
    features = pooled(model(tokens, call).hidden, tokens, model.config.classifier.of, call)
    return log_probabilities(at_first(model.classify(features, call), tokens))


# --- what there is to say ------------------------------------------------------------------------------------


def judged(log_p: Scores, gold: Gold) -> tuple[Metric, ...]:
    """Metrics of labels and of their probabilities, each with its interval."""
    log_p = np.asarray(log_p, np.float64)
    p, chosen, ones = np.exp(log_p), log_p.argmax(axis=1), np.ones(len(log_p))
    nats = -np.take_along_axis(log_p, gold[:, None], axis=1)[:, 0]
    return (
        share("accuracy", chosen == gold),
        around("macro_f1", f1, gold, chosen),
        around("matthews", matthews, gold, chosen),
        ratio("loss", nats, ones),
        ratio("brier", calibration.brier(p, gold), ones),
        around("ece", _error("width"), p.max(axis=1), chosen == gold),
        around("ece_mass", _error("mass"), p.max(axis=1), chosen == gold),
    )


def bins(log_p: Scores, gold: Gold) -> dict[str, dict[str, float]]:
    """The reliability table in bins of equal mass, from the least sure on."""
    table = calibration.reliability(np.exp(log_p), gold, kind="mass")
    return {
        f"bin {number}": {key: float(value) for key, value in dataclasses.asdict(one).items()}
        for number, one in enumerate(table, 1)
    }


def _error(kind: str):
    return lambda sure, right: calibration.expected_calibration_error(calibration.bins_of(sure, right, kind=kind))
