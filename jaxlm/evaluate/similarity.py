"""Whether cosines of vectors agree with how alike people say texts are."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy import stats

Vectors = Float[np.ndarray, "item embed"]
Values = Float[np.ndarray, " item"]


def cosines(first: Vectors, second: Vectors) -> Values:
    """Of each item's two vectors; 0 where one is zero."""
    length = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.einsum("ie,ie->i", first, second) / np.where(length > 0, length, 1)


def pearson(one: Values, other: Values) -> float:
    """The linear correlation; nan where either is the same for all items."""
    return float(stats.pearsonr(one, other).statistic) if _vary(one, other) else math.nan


def spearman(one: Values, other: Values) -> float:
    """The correlation of ranks, of which equal values share the mean; nan where either is the same for all."""
    return float(stats.spearmanr(one, other).statistic) if _vary(one, other) else math.nan


def _vary(*values: Values) -> bool:
    return all(len(one) > 1 and np.ptp(one) > 0 for one in values)
