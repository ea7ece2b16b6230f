"""What can be read off vectors: a linear classifier on top of them, and their neighbors' labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import softmax

from jaxlm.config.errors import UsageError
from jaxlm.evaluate.calibration import negative_log_likelihood, normalized
from jaxlm.evaluate.retrieval import nearest

Vectors = Float[np.ndarray, "item embed"]
Labels = Int[np.ndarray, " item"]
PENALTIES = (1e4, 1e3, 1e2, 1e1, 1e0, 1e-1, 1e-2)
"""Tried from the strongest until the next is worse, each from the weights of the one before."""
APART = 0.2
"""Share of the training items on which the penalty is chosen."""


class Probe(NamedTuple):
    """A linear classifier of standardized vectors."""

    mean: Float[np.ndarray, " embed"]
    scale: Float[np.ndarray, " embed"]
    weights: Float[np.ndarray, "embed classes"]
    bias: Float[np.ndarray, " classes"]
    penalty: float

    def __call__(self, vectors: Vectors) -> Float[np.ndarray, "item classes"]:
        """Scores, of which `calibration.normalized` makes log-probabilities."""
        return (vectors - self.mean) / self.scale @ self.weights + self.bias


def fit_probe(vectors: Vectors, labels: Labels, classes: int, seed: int = 0) -> Probe:
    """Multinomial logistic regression by L-BFGS, with the L2 penalty that does best on a fifth of the items, then
    fitted to all of them (linear probes: Alain and Bengio 2016, arXiv:1610.01644).

    Means and deviations are those of the items given here: those it is judged on have no part in them. Raises
    UsageError for fewer than two classes, and where a fifth of the items is none.
    """
    if len(np.unique(labels)) < 2:
        raise UsageError("a probe of one class: give training items of two classes or more")
    order = np.random.default_rng(seed).permutation(len(labels))
    apart, rest = np.split(order, [int(APART * len(order))])
    if not len(apart):
        raise UsageError(f"a probe of {len(labels)} items: give ten or more for training")
    best, least = None, np.inf
    for penalty in PENALTIES:
        found = fit(vectors[rest], labels[rest], classes, penalty, best)
        loss = negative_log_likelihood(normalized(found(vectors[apart])), labels[apart])
        if loss >= least:
            break
        best, least = found, loss
    return fit(vectors, labels, classes, best.penalty, best)


def fit(vectors: Vectors, labels: Labels, classes: int, penalty: float, start: Probe | None = None) -> Probe:
    """The least sum of -log p(label) + penalty / 2 * |weights|^2 over standardized vectors, biases free.

    With scikit-learn's `C` of 1 / penalty; of two classes, for which it has one vector, of 2 / penalty. A part
    of the vectors that changes by rounding alone is left as it is.
    """
    mean, scale = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 1e-7 * scale.max(initial=0.0), scale, 1.0)  # below is the rounding of float32
    inputs, n = (vectors - mean) / scale, len(labels)
    truth = np.zeros((n, classes))
    truth[np.arange(n), labels] = 1
    shape = (vectors.shape[1] + 1, classes)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = np.split(flat.reshape(shape), [-1])
        scores = inputs @ weights + bias
        errors = (softmax(scores, axis=1) - truth) / n
        value = negative_log_likelihood(normalized(scores), labels) + penalty / (2 * n) * np.sum(weights**2)
        slope = np.concatenate([inputs.T @ errors + penalty / n * weights, errors.sum(axis=0, keepdims=True)])
        return float(value), slope.ravel()

    first = np.zeros(shape) if start is None else np.concatenate([start.weights, start.bias[None]])
    options = {"maxiter": 1_000, "maxcor": 20, "ftol": 1e-12, "gtol": 1e-7}
    found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(shape)
    return Probe(mean, scale, found[:-1], found[-1], penalty)


def vote(
    training: Float[np.ndarray, "training embed"],
    labels: Int[np.ndarray, " training"],
    vectors: Float[np.ndarray, "item embed"],
    classes: int,
    k: int = 10,
) -> Float[np.ndarray, "item classes"]:
    """Of each item the share of its k nearest training items by cosine that are of each class.

    Where two classes have as many, the one whose neighbors are nearer is ahead by next to nothing. Raises
    UsageError for fewer training items than k.
    """
    if len(training) < k:
        raise UsageError(f"the {k} nearest of {len(training)} training items: ask for fewer")
    places, cosines = nearest(vectors, training, k)
    shares = np.zeros((len(vectors), classes))
    rows = np.arange(len(vectors))
    for i in range(k):
        shares[rows, labels[places[:, i]]] += (1 + 1e-9 * cosines[:, i].astype(np.float64)) / k
    return shares / shares.sum(axis=1, keepdims=True)
