"""Exact search among vectors, and how early it finds what belongs to a query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

Ranks = list[Int[np.ndarray, "_"]]
"""Of each query the ranks of the documents that belong to it, from 1."""
AT_ONCE = 1 << 24
"""Cosines held at once: 64 MiB in float32."""


def nearest(
    queries: Float[np.ndarray, "query embed"], documents: Float[np.ndarray, "document embed"], k: int
) -> tuple[Int[np.ndarray, "query k"], Float[np.ndarray, "query k"]]:
    """The k documents of the largest cosines with each query, the largest first, and those cosines.

    Exact, a block of queries at a time. Documents that are equally near come in their own order.
    """
    places, values = [], []
    for _, cosines in _blocks(queries, documents):
        chosen = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        places.append(chosen)
        values.append(np.take_along_axis(cosines, chosen, axis=1))
    return np.concatenate(places), np.concatenate(values)


def ranks(
    queries: Float[np.ndarray, "query embed"],
    documents: Float[np.ndarray, "document embed"],
    relevant: Sequence[Sequence[int]],
) -> Ranks:
    """Where an exact search of all documents finds those that belong to each query, the first of them first.

    Ties are lost: a document behind which others are as near stands behind them all, so that vectors that are all
    alike find nothing.
    """
    found = []
    for start, cosines in _blocks(queries, documents):
        for row, wanted in zip(cosines, relevant[start : start + len(cosines)]):
            own = np.sort(row[list(wanted)])[::-1]
            others = np.sort(np.delete(row, list(wanted)))
            ahead = len(others) - np.searchsorted(others, own, side="left")
            found.append(ahead + np.arange(1, len(own) + 1))
    return found


def _blocks(
    queries: Float[np.ndarray, "query embed"], documents: Float[np.ndarray, "document embed"]
) -> Iterator[tuple[int, Float[np.ndarray, "some document"]]]:
    """(First query, cosines of a block of queries with all documents)."""
    queries, documents = (_of_length_one(one) for one in (queries, documents))
    step = max(AT_ONCE // len(documents), 1)
    for start in range(0, len(queries), step):
        yield start, queries[start : start + step] @ documents.T


def _of_length_one(vectors: Float[np.ndarray, "item embed"]) -> Float[np.ndarray, "item embed"]:
    """A vector of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


# --- numbers of each query, whose mean is the metric -------------------------------------------------------


def recall(found: Ranks, k: int) -> Float[np.ndarray, " query"]:
    """Share of what belongs to each query that is among the first k."""
    return np.array([np.mean(one <= k) for one in found])


def reciprocal_rank(found: Ranks) -> Float[np.ndarray, " query"]:
    """1 / rank of the first that belongs to each query (its mean: MRR; Voorhees 1999)."""
    return np.array([1 / one[0] for one in found])


def discounted_gain(found: Ranks, k: int) -> Float[np.ndarray, " query"]:
    """nDCG@k: the sum of 1 / log2(1 + rank) over ranks up to k, as a share of the best there can be (Jarvelin and
    Kekalainen 2002, with gains of 1).
    """

    def gain(ranks: np.ndarray) -> float:
        return float(np.sum(1 / np.log2(1 + ranks[ranks <= k])))

    return np.array([gain(one) / gain(np.arange(1, len(one) + 1)) for one in found])
