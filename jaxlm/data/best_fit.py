"""Rows of whole documents, padded: best fit, longest first (Ding et al. 2024, arXiv:2404.10830, algorithm 1).

How many rows there are, and which lengths share one, depends on the lengths alone: all epochs have equally many
rows, and row r is of epoch r // rows. An epoch's seed decides which of the documents of a length lies where, and in
which order the rows come.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Int64

from jaxlm.data import order
from jaxlm.data.dataset import Dataset

ROWS = 0x0520_5753
"""Sets the permutation of rows apart from that of documents."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Where documents lie in packed rows; one longer than a row is cut into pieces of a row."""

    dataset: Dataset
    length: int
    seed: int | None
    version: tuple = ("best fit", 1)

    @cached_property
    def _pieces(self) -> tuple[Int64[np.ndarray, " pieces"], Int64[np.ndarray, " pieces"]]:
        """The document of each piece, and the place of its first token there."""
        counts = -(-self.dataset.lengths // self.length)
        document = np.repeat(np.arange(self.dataset.documents), counts)
        number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        return document, number * self.length

    @cached_property
    def _lengths(self) -> Int64[np.ndarray, " pieces"]:
        document, start = self._pieces
        return np.minimum(self.dataset.lengths[document] - start, self.length)

    @cached_property
    def _bins(self) -> tuple[Int64[np.ndarray, " pieces"], Int64[np.ndarray, " rows_plus_1"]]:
        """Ranks of pieces by length, row after row, and where each row's begin."""
        row = best_fit(np.sort(self._lengths)[::-1], self.length)
        counts = np.bincount(row)
        return np.argsort(row, kind="stable"), np.concatenate([[0], np.cumsum(counts)])

    @property
    def rows(self) -> int:
        """Rows of an epoch."""
        return len(self._bins[1]) - 1

    def places(self, first: int, count: int) -> tuple[Int64[np.ndarray, "row pos"], Int64[np.ndarray, "row pos"]]:
        """For each position of rows `first` on: epoch * documents + document (-1 is padding), the place in it."""
        keys = np.full((count, self.length), -1, np.int64)
        places = np.zeros((count, self.length), np.int64)
        ranks, begins = self._bins
        document, start = self._pieces
        for i in range(count):
            epoch, at = divmod(first + i, self.rows)
            if self.seed is None and epoch:
                break
            piece_of, row_of = _epoch(self, epoch)
            pieces = piece_of[ranks[begins[row_of[at]] : begins[row_of[at] + 1]]]
            lengths = self._lengths[pieces]
            filled, ends = int(lengths.sum()), np.cumsum(lengths)
            keys[i, :filled] = np.repeat(epoch * self.dataset.documents + document[pieces], lengths)
            places[i, :filled] = np.arange(filled) + np.repeat(start[pieces] - ends + lengths, lengths)
        return keys, places


@lru_cache(maxsize=4)
def _epoch(plan: Plan, epoch: int) -> tuple[Int64[np.ndarray, " pieces"], Int64[np.ndarray, " rows"]]:
    """The piece at each rank, the longest first, and the bin that is each row."""
    lengths = plan._lengths
    if plan.seed is None:
        return np.argsort(-lengths, kind="stable"), np.arange(plan.rows)
    shuffled = order.permutation(len(lengths), plan.seed, epoch)
    pieces = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    return pieces, order.permutation(plan.rows, plan.seed ^ ROWS, epoch)


def best_fit(lengths: Int64[np.ndarray, " pieces"], room: int) -> Int64[np.ndarray, " pieces"]:
    """The bin of each piece, given in falling order of length: the fullest bin with room for it, else a new one.

    Bins of equally much room are taken last in, first out. Lengths are at most `room`.
    """
    found = np.empty(len(lengths), np.int64)
    with_room: list[list[int]] = [[] for _ in range(room + 1)]
    there = 0  # bit r is set where a bin has room r left
    bins = 0
    for i, length in enumerate(lengths.tolist()):
        fitting = there >> length
        if fitting:
            left = length + (fitting & -fitting).bit_length() - 1
            number = with_room[left].pop()
            if not with_room[left]:
                there ^= 1 << left
        else:
            left, number, bins = room, bins, bins + 1
        with_room[left - length].append(number)
        there |= 1 << (left - length)
        found[i] = number
    return found
