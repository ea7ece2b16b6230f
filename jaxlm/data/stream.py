"""Rows as consecutive cuts of one long stream: no token is lost, and no row is padded.

The stream is the concatenation of epochs, each a permutation of all documents, and so L tokens long. Row r is its
tokens [rT, (r + 1)T).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from jaxlm.data import order
from jaxlm.data.dataset import Dataset


@dataclass(frozen=True, eq=False)
class Plan:
    """Where documents lie in the rows of a stream."""

    dataset: Dataset
    length: int
    seed: int | None
    version: tuple = ()

    @property
    def rows(self) -> int:
        """Rows that hold one epoch, the last perhaps in part."""
        return -(-int(self.dataset.offsets[-1]) // self.length)

    def places(self, first: int, count: int) -> tuple[Int64[np.ndarray, "row pos"], Int64[np.ndarray, "row pos"]]:
        """For each position of rows `first` on: epoch * documents + document (-1 is padding), the place in it."""
        shape = (count, self.length)
        if not count:
            return np.empty(shape, np.int64), np.empty(shape, np.int64)
        keys, places = self._span(first * self.length, (first + count) * self.length)
        return keys.reshape(shape), places.reshape(shape)

    def _span(self, start: int, stop: int) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """The same for tokens [start, stop) of the stream."""
        length = int(self.dataset.offsets[-1])
        parts = []
        while start < stop:
            epoch = start // length
            if self.seed is None and epoch > 0:
                parts.append((np.full(stop - start, -1, np.int64), np.zeros(stop - start, np.int64)))
                break
            end = min(stop, (epoch + 1) * length)
            parts.append(self._part(epoch, start - epoch * length, end - epoch * length))
            start = end
        keys, places = map(np.concatenate, zip(*parts))
        return keys, places

    def _part(self, epoch: int, start: int, stop: int) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """The same for tokens [start, stop) of one epoch."""
        layout = _layout(self.dataset, self.seed, epoch)
        low, high = np.searchsorted(layout.ends, [start, stop - 1], side="right")
        chosen = layout.order[low : high + 1]
        begins = layout.ends[low : high + 1] - self.dataset.lengths_of(chosen)
        cut = np.clip(layout.ends[low : high + 1], start, stop) - np.clip(begins, start, stop)
        places = np.arange(start, stop) - np.repeat(begins, cut)
        return np.repeat(epoch * self.dataset.documents + chosen, cut), places


@lru_cache(maxsize=4)
def _layout(dataset: Dataset, seed: int | None, epoch: int) -> order.Epoch:
    return order.arrange(dataset.lengths, seed, epoch)
