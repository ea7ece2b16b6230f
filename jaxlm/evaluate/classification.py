"""How good labels are: of a classifier, a probe, or a model that chose among answers."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int

Labels = Int[np.ndarray, " item"]
"""Numbers of classes from 0."""


def f1(gold: Labels, predicted: Labels) -> float:
    """The macro average: the mean of 2 * right / (of the class + predicted to be) over classes that are either."""
    right, of, to = _counts(gold, predicted)
    there = of + to > 0
    return float(np.mean(2 * right[there] / (of + to)[there]))


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
