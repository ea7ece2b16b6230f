"""Objectives with labels and pairs reach what a language of known probabilities allows, and wrong ones do not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.layers.contracts import Batch
from jaxlm.objectives.build import build
from tests.objectives import texts
from tests.objectives.test_optimum import (
    CHECKED,
    ENCODER,
    LENGTH,
    SHARES,
    SYMBOLS,
    TEXTS,
    WORDS,
    drawn,
    masked_lm,
    reached,
)
from tests.objectives.texts import BOS, EOS, FIRST, MASK, SPECIAL

RIGHT = np.random.default_rng(1).beta(0.4, 0.4, len(TEXTS))
"""The probability of label 1 of each text."""
CLASSIFIER = dataclasses.replace(ENCODER, classifier=config.Classifier())
MASKED = config.MaskedLm(0.3, chunks=1)
KEY = jax.random.key(10**6)
"""Of what is hidden where a loss is measured."""
FEW = 16
"""Pairs of a batch in which vectors are compared."""


def uncertain(joint) -> float:
    """Nats of the first of two variables, given the second."""
    total = joint.sum(0)
    used = joint > 0
    return -(joint[used] * np.log((joint / np.where(total > 0, total, 1))[used])).sum()


def joint_of(shown):
    """[label, what is shown of all words] -> probability, by [word, what is shown of it] -> probability."""
    joint = 0.0
    for share, right, text in zip(SHARES, RIGHT, TEXTS):
        product = np.ones(1)
        for word in text:
            product = np.outer(product, shown[word]).ravel()
        joint = joint + share * np.outer([1 - right, right], product)
    return joint


def known(shown, rows: Batch) -> float:
    """Nats of the labels of these very texts, for whoever knows all probabilities."""
    joint, ids = joint_of(shown), np.asarray(rows.inputs.ids[:, 1:-1])
    symbol = np.isin(ids, range(FIRST, FIRST + SYMBOLS))
    what = np.where(symbol, ids - FIRST, np.where(ids == MASK, SYMBOLS + 1, SYMBOLS))
    number = what @ (shown.shape[1] ** np.arange(WORDS)[::-1])
    label = np.asarray(rows.extra["labels"][:, 0])
    return -np.log(joint[label, number] / joint.sum(0)[number]).mean()


def seen(kind: config.MaskedLm):
    """A symbol, another token of text, or the mask."""
    ordinary = texts.VOCAB - len(SPECIAL.ids)
    found = np.zeros((SYMBOLS, SYMBOLS + 2))
    found[:, SYMBOLS + 1] = kind.rate * kind.masked
    found[:, :SYMBOLS] += kind.rate * kind.replaced / ordinary
    found[:, SYMBOLS] = kind.rate * kind.replaced * (ordinary - SYMBOLS) / ordinary
    return found + np.eye(SYMBOLS, SYMBOLS + 2) * (1 - kind.rate * (kind.masked + kind.replaced))


def labeled(count: int, first: int) -> Batch:
    """Texts of the language, one a row, each with a label."""
    rows = drawn(count, first)
    number = (np.asarray(rows.inputs.ids[:, 1:-1]) - FIRST) @ (SYMBOLS ** np.arange(WORDS)[::-1])
    label = np.random.default_rng([first, 1]).random(count) < RIGHT[number]
    told = np.full((count, LENGTH), -1)
    told[:, 0] = label
    return rows.replace(extra=rows.extra | {"labels": jnp.asarray(told, jnp.int32)})


def turned(count: int, first: int) -> Batch:
    """The control: each text has the label of another."""
    rows = labeled(count, first)
    return rows.replace(extra=rows.extra | {"labels": jnp.roll(rows.extra["labels"], 1, axis=0)})


OPTIMA = {
    "classification": (config.Classification(), lambda rows: known(np.eye(SYMBOLS), rows)),
    "next_sentence": (config.NextSentence(MASKED), lambda rows: known(seen(MASKED), rows) + masked_lm(MASKED)),
}
"""Objective, and the least loss of some rows: labels are few, and those that are drawn differ from the rest."""


@pytest.mark.nightly
@pytest.mark.parametrize("name", OPTIMA)
def test_labels(name, record_property):
    kind, optimum = OPTIMA[name]
    objective = build(kind, CLASSIFIER, lambda: SPECIAL)
    least = optimum(objective.prepare(labeled(CHECKED, 0), KEY))
    found, control = (reached(objective, CLASSIFIER, drawn=one) for one in (labeled, turned))
    told(record_property, name, found / least, control / least)
    assert found == pytest.approx(least, rel=0.02)
    assert control > 1.1 * least, "the control"


def told(record_property, name, found, control):
    for key, value in (("objective", name), ("optimum", found), ("control", control)):
        record_property(key, value)


def pairs(count: int, first: int) -> Batch:
    """The first two words of a text and its last three, with an end between."""
    rows = drawn(count, first)
    ids = np.asarray(rows.inputs.ids)
    ids = np.concatenate([ids[:, :3], np.full((count, 1), EOS), ids[:, 3:]], axis=1)
    whole = texts.batch([[(0, ids[0, 1:-1])]], LENGTH + 1)
    whole = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), whole)
    numbers = jnp.asarray((first + np.arange(count))[:, None] + np.zeros((1, LENGTH + 1)), jnp.int32)
    told = np.full((count, LENGTH + 1), -1)
    told[:, 0] = 0
    return whole.replace(
        inputs=whole.inputs.replace(ids=jnp.asarray(ids, jnp.int32)),
        rows=numbers[:, 0],
        documents=numbers,
        extra={"labels": jnp.asarray(told, jnp.int32)},
    )


def strangers(count: int, first: int) -> Batch:
    """The control: second texts of others."""
    rows = pairs(count, first)
    ids = rows.inputs.ids
    ids = jnp.concatenate([ids[:, :4], jnp.roll(ids[:, 4:], 1, axis=0)], axis=1)
    return rows.replace(inputs=rows.inputs.replace(ids=ids))


def told_apart(rows: Batch) -> float:
    """The loss of the best of all scores, log p(second | first) - log p(second), in batches of a few."""
    joint = SHARES.reshape(SYMBOLS**2, SYMBOLS**3)
    ratio = joint / joint.sum(0) / joint.sum(1, keepdims=True)
    ids = np.asarray(rows.inputs.ids) - FIRST
    assert (np.asarray(rows.inputs.ids)[:, 0] == BOS).all()
    one, two = ids[:, 1:3] @ [2, 1], ids[:, 4:7] @ [4, 2, 1]
    scores = ratio[one.reshape(-1, FEW, 1), two.reshape(-1, 1, FEW)]
    return -np.log(np.diagonal(scores, axis1=1, axis2=2) / scores.sum(2)).mean()


@pytest.mark.nightly
def test_pairs(record_property):
    objective = build(config.Contrastive(most=1, temperature=0.2), ENCODER, lambda: SPECIAL)
    optimum = told_apart(pairs(CHECKED, 0))
    assert optimum < 0.9 * np.log(FEW)
    found, control = (reached(objective, ENCODER, drawn=one, tests=FEW) for one in (pairs, strangers))
    told(record_property, "contrastive", found / optimum, control / optimum)
    assert found == pytest.approx(optimum, rel=0.02)
    assert control > 1.05 * optimum, "the control"


def test_what_is_counted_is_what_is_drawn():
    """The entropies by counting texts that are drawn; a label of another text says nothing."""
    joint = np.zeros((2, len(TEXTS)))
    rows = labeled(60_000, 0)
    number = (np.asarray(rows.inputs.ids[:, 1:-1]) - FIRST) @ (SYMBOLS ** np.arange(WORDS)[::-1])
    np.add.at(joint, (np.asarray(rows.extra["labels"][:, 0]), number), 1 / 60_000)
    expected = uncertain(joint_of(np.eye(SYMBOLS)))
    assert uncertain(joint) == pytest.approx(expected, rel=0.02)
    assert uncertain(joint_of(seen(MASKED))) > 1.2 * expected, "hidden words hide labels"
    rows = build(config.NextSentence(MASKED), CLASSIFIER, lambda: SPECIAL).prepare(labeled(60_000, 0), KEY)
    assert known(seen(MASKED), rows) == pytest.approx(uncertain(joint_of(seen(MASKED))), rel=0.02)
    assert told_apart(strangers(CHECKED, 0)) > 1.1 * told_apart(pairs(CHECKED, 0))
