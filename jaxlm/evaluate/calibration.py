"""Whether a model's probabilities come true: of all it is 80 % sure of, four of five should be right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar

Scores = Float[np.ndarray, "item classes"]
Labels = Int[np.ndarray, " item"]
BINS = 15
"""Guo et al. 2017, arXiv:1706.04599, section 5."""
SOFTEST, HARDEST = 1e3, 1e-2
"""Temperatures that are tried: between them lies what calibrates a model that has learned anything."""


def normalized(scores: Scores) -> Scores:
    """Log-probabilities in nats, float64, of scores that need not be any.

    What a model says comes out of `layers/logprob.py`; this is for what is made of its scores afterwards.
    """
    shifted = np.asarray(scores, np.float64) - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def negative_log_likelihood(log_probabilities: Scores, labels: Labels) -> float:
    """Mean of -log p(label), in nats."""
    return float(-np.mean(np.take_along_axis(log_probabilities, labels[:, None], axis=1)))


def brier(probabilities: Scores, labels: Labels) -> Float[np.ndarray, " item"]:
    """Of each item the sum over classes of (probability - truth)^2, from 0 to 2 (Brier 1950, equation 2).

    Their mean is the score. Of two classes it is twice what is often called so, the square of one class's error.
    """
    truth = np.arange(probabilities.shape[1]) == labels[:, None]
    return np.sum((probabilities - truth) ** 2, axis=1)


@dataclass(frozen=True)
class Bin:
    """Items of which a model is about equally sure."""

    low: float
    high: float
    """The probabilities between which those of its predicted classes lie."""
    items: int
    confidence: float
    """Mean probability of the predicted class."""
    accuracy: float
    """Share of items whose predicted class is right."""


def reliability(
    probabilities: Scores, labels: Labels, bins: int = BINS, kind: Literal["width", "mass"] = "width"
) -> tuple[Bin, ...]:
    """Items by the probability of their predicted class, as `bins_of` has them."""
    return bins_of(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins, kind)


def bins_of(
    sure: Float[np.ndarray, " item"],
    right: Bool[np.ndarray, " item"],
    bins: int = BINS,
    kind: Literal["width", "mass"] = "width",
) -> tuple[Bin, ...]:
    """Items by how sure a model is of them, in bins that hold any.

    Bins of equal "width" cut 0 to 1 as usual, and most items of a good model fall into the last; those of equal
    "mass" hold as many items each, but for one (Nixon et al. 2019, arXiv:1904.01685, section 3).
    """
    order = np.argsort(sure, kind="stable")
    if kind == "mass":
        parts = np.array_split(order, bins)
        edges = [(sure[part[0]], sure[part[-1]]) for part in parts if len(part)]
    else:
        # Of a bin are those above its lower end, up to its upper one.
        cuts = np.linspace(0, 1, bins + 1)
        parts = np.split(order, np.searchsorted(sure[order], cuts[1:-1], side="right"))
        edges = [cuts[i : i + 2] for i, part in enumerate(parts) if len(part)]
    return tuple(
        Bin(float(low), float(high), len(part), float(sure[part].mean()), float(right[part].mean()))
        for (low, high), part in zip(edges, (part for part in parts if len(part)), strict=True)
    )


def expected_calibration_error(table: tuple[Bin, ...]) -> float:
    """Mean over items of how far their bin's accuracy is from its confidence (Guo et al. 2017, equation 3).

    Even of a perfectly calibrated model it is above 0, the more so the fewer items a bin has.
    """
    items = sum(one.items for one in table)
    return sum(one.items * abs(one.accuracy - one.confidence) for one in table) / items


def temperature(scores: Scores, labels: Labels) -> float:
    """The temperature that makes labels likeliest when scores are divided by it (Guo et al. 2017, section 4.2).

    Fit it on other items than it is judged on. The loss has one minimum in 1 / temperature, for which it is convex.
    Where every label is the likeliest of its item, or next to none is, an end of what is tried is returned.
    """
    found = minimize_scalar(
        lambda log: negative_log_likelihood(normalized(scores * np.exp(-log)), labels),
        bounds=(np.log(HARDEST), np.log(SOFTEST)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(np.exp(found.x))
