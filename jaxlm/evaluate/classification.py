"""How good labels are: of a classifier, a probe, or a model that chose among answers."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Labels = Int[np.ndarray, " item"]
"""Numbers of classes from 0."""


def confusion(gold: Labels, predicted: Labels, classes: int) -> Int[np.ndarray, "classes classes"]:
    """Items by their class (row) and the predicted one (column)."""
    return np.bincount(gold * classes + predicted, minlength=classes**2).reshape(classes, classes)


def accuracy(gold: Labels, predicted: Labels) -> float:
    """Share of items whose label is right."""
    return float(np.mean(gold == predicted))


def f1(gold: Labels, predicted: Labels, average: Literal["macro", "micro", "weighted"] = "macro") -> float:
    """2 * right / (of the class + predicted to be), for each class that is either.

    "macro" is the mean over classes, "weighted" weighs each by its items, "micro" counts all items together, which
    makes it the accuracy.
    """
    if average == "micro":
        return accuracy(gold, predicted)
    right, of, to = _counts(gold, predicted)
    there = of + to > 0
    scores = 2 * right[there] / (of + to)[there]
    return float(np.mean(scores) if average == "macro" else np.average(scores, weights=of[there]))


def matthews(gold: Labels, predicted: Labels) -> float:
    """The correlation of labels and predictions, from -1 to 1; 0 is chance, whatever the classes' sizes.

    Of many classes by Gorodkin 2004, equation 8. 0 where all items are of one class or predicted to be of one.
    """
    right, of, to = (one.astype(np.float64) for one in _counts(gold, predicted))
    n = float(len(gold))
    spread = math.sqrt(n**2 - of @ of) * math.sqrt(n**2 - to @ to)
    return float((n * right.sum() - of @ to) / spread) if spread else 0.0


def _counts(gold: Labels, predicted: Labels) -> tuple[Int[np.ndarray, " classes"], ...]:
    """Of each class: items predicted right, items, and items predicted to be of it."""
    classes = int(max(gold.max(), predicted.max())) + 1
    return tuple(np.bincount(one, minlength=classes) for one in (gold[gold == predicted], gold, predicted))


def agreement(log_probabilities: Float[np.ndarray, "item classes"], gold: Labels, k: int) -> float:
    """Share of items whose class is among the k likeliest; one that others are as likely as stands behind them."""
    chosen = np.take_along_axis(log_probabilities, gold[:, None], axis=1)
    return float(np.mean(np.sum(log_probabilities >= chosen, axis=1) <= k))
