"""Whether vectors fall into the groups that people see."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxlm.config.errors import UsageError

Vectors = Float[np.ndarray, "item embed"]
Labels = Int[np.ndarray, " item"]
ROUNDS = 300
"""Most rounds of Lloyd's algorithm: it ends by itself where no item changes its cluster."""


class Clusters(NamedTuple):
    """What k-means found."""

    labels: Labels
    centers: Float[np.ndarray, "k embed"]
    inertia: float
    """Sum of the squared distances of items to their centers."""


def kmeans(vectors: Vectors, k: int, restarts: int = 10, seed: int = 0) -> Clusters:
    """Lloyd's algorithm (1982) from k-means++ centers (Arthur and Vassilvitskii 2007), the best of `restarts`.

    Raises UsageError for fewer distinct vectors than clusters.
    """
    if (distinct := len(np.unique(vectors, axis=0))) < k:
        raise UsageError(f"{k} clusters of {distinct} distinct vectors: ask for fewer, or give more items")
    rng = np.random.default_rng(seed)
    middle = vectors.mean(axis=0)
    # Around their middle squared distances lose fewest digits.
    centered = vectors - middle
    found = [_lloyd(centered, _first_centers(centered, k, rng)) for _ in range(restarts)]
    best = min(found, key=lambda one: one.inertia)
    return best._replace(centers=best.centers + middle)


def _first_centers(vectors: Vectors, k: int, rng: np.random.Generator) -> Float[np.ndarray, "k embed"]:
    """Items, each drawn by its squared distance to the nearest before it, the best of a few draws (section 7)."""
    draws = 2 + int(np.log(k))
    chosen = [int(rng.integers(len(vectors)))]
    nearest = _distances(vectors, vectors[chosen])[:, 0]
    while len(chosen) < k:
        candidates = np.searchsorted(np.cumsum(nearest), rng.random(draws) * nearest.sum(), side="right")
        candidates = np.minimum(candidates, len(vectors) - 1)
        each = np.minimum(nearest[:, None], _distances(vectors, vectors[candidates]))
        best = int(np.argmin(each.sum(axis=0)))
        chosen.append(int(candidates[best]))
        nearest = each[:, best]
    return vectors[chosen]


def _lloyd(vectors: Vectors, centers: Float[np.ndarray, "k embed"]) -> Clusters:
    labels = np.full(len(vectors), -1)
    for _ in range(ROUNDS):
        distances = _distances(vectors, centers)
        new = distances.argmin(axis=1)
        if np.array_equal(new, labels):
            break
        labels = new
        counts = np.bincount(labels, minlength=len(centers))
        # A cluster that lost all its items begins anew at the item that lies worst.
        for empty in np.flatnonzero(counts == 0):
            farthest = int(np.argmax(np.where(counts[labels] > 1, distances[np.arange(len(labels)), labels], -1)))
            counts[labels[farthest]] -= 1
            labels[farthest], counts[empty] = empty, 1
        centers = _sums(vectors, labels, len(centers)) / counts[:, None].astype(vectors.dtype)
    squares = np.square(vectors - centers[labels], dtype=np.float64)
    return Clusters(labels, centers, float(squares.sum()))


def _sums(vectors: Vectors, labels: Labels, k: int) -> Float[np.ndarray, "k embed"]:
    """Of each cluster, none of which is empty."""
    order = np.argsort(labels, kind="stable")
    return np.add.reduceat(vectors[order], np.searchsorted(labels[order], np.arange(k)), axis=0)


def _distances(vectors: Vectors, centers: Float[np.ndarray, "k embed"]) -> Float[np.ndarray, "item k"]:
    """Squared, never below 0."""
    lengths, far = (np.einsum("ie,ie->i", one, one) for one in (vectors, centers))
    return np.maximum(lengths[:, None] - 2 * vectors @ centers.T + far[None], 0)


# --- two ways to group the same items ------------------------------------------------------------------------


def table(gold: Labels, found: Labels) -> Float[np.ndarray, "classes clusters"]:
    """Items by class and cluster, of those that have any."""
    (_, rows), (_, columns) = (np.unique(one, return_inverse=True) for one in (gold, found))
    width = int(columns.max()) + 1
    counts = np.bincount(rows * width + columns, minlength=(int(rows.max()) + 1) * width)
    return counts.reshape(-1, width).astype(np.float64)


def normalized_mutual_information(gold: Labels, found: Labels) -> float:
    """2 * mutual information / (entropy + entropy), from 0 to 1 (Strehl and Ghosh 2002, by the arithmetic mean).

    1 where both are one group. It grows with the number of clusters even by chance, unlike `adjusted_rand`.
    """
    joint = table(gold, found) / len(gold)
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    if len(rows) == len(columns) == 1:
        return 1.0
    there = joint > 0
    information = np.sum(joint[there] * np.log((joint / np.outer(rows, columns))[there]))
    return float(max(2 * information / (_entropy(rows) + _entropy(columns)), 0.0))


def _entropy(shares: Float[np.ndarray, " part"]) -> float:
    return float(-np.sum(shares * np.log(shares)))


def adjusted_rand(gold: Labels, found: Labels) -> float:
    """Share of pairs of items that both group alike, 0 by chance and 1 at best (Hubert and Arabie 1985, eq. 5)."""
    counts = table(gold, found)
    together, of, to = (_pairs(one) for one in (counts, counts.sum(axis=1), counts.sum(axis=0)))
    chance = of * to / max(_pairs(np.array([len(gold)])), 1.0)
    best = (of + to) / 2
    return float((together - chance) / (best - chance)) if best != chance else 1.0


def _pairs(counts: np.ndarray) -> float:
    counts = counts.astype(np.float64)
    return float(np.sum(counts * (counts - 1)) / 2)


def purity(gold: Labels, found: Labels) -> float:
    """Share of items that are of their cluster's commonest class; as many clusters as items make it 1."""
    return float(table(gold, found).max(axis=0).sum() / len(gold))
