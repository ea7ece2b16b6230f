"""Rows of the token stream: what any process needs to know of any step, from (seed, step) alone.

The stream is the concatenation of epochs, each a permutation of all documents, and so L tokens long. Row r is
its tokens [rT, (r + 1)T), and row i of step s is s * batch + i. A document is `bos, text..., eos`; a token is
predicted from those before it in its document, so `bos` never is, and nothing is predicted from `eos`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64

from jaxlm.config.data import Packing, Stream
from jaxlm.config.errors import Failure, UsageError
from jaxlm.data import order
from jaxlm.data.dataset import Dataset


class Row(NamedTuple):
    """One row of T tokens."""

    ids: Int32[np.ndarray, " pos"]
    segments: Int32[np.ndarray, " pos"]
    """Documents of the row, counted from 1; 0 is padding."""
    positions: Int32[np.ndarray, " pos"]
    targets: Int32[np.ndarray, " pos"]
    """The next token of the same document; padding where there is none."""
    weights: Float32[np.ndarray, " pos"]
    """1 where there is a target, else 0."""
    documents: Int32[np.ndarray, " pos"]
    """epoch * documents + document, modulo 2**31: a key for randomness, with the position."""
    row: int


@dataclass(frozen=True, eq=False)
class Rows:
    """A dataset as rows: `batch(step, slice)` is a pure function of these fields."""

    dataset: Dataset
    length: int
    """T, the tokens of a row."""
    size: int
    """Rows of a global batch."""
    seed: int | None
    """Of the permutations; None is one epoch in the dataset's own order, then padding."""
    positions: Literal["document", "row"] = "document"

    def __post_init__(self):
        if self.length < 1 or self.size < 1:
            raise UsageError(f"train.length={self.length}, train.batch={self.size}: both must be at least 1")
        if self.dataset.documents == 0 or self.dataset.offsets[-1] == 0:
            raise Failure("there are no documents to make rows of: the dataset is empty")

    @property
    def epoch_tokens(self) -> int:
        """L, the tokens of an epoch."""
        return int(self.dataset.offsets[-1])

    @property
    def steps(self) -> int:
        """Batches that hold one epoch, the last perhaps in part."""
        return -(-self.epoch_tokens // (self.length * self.size))

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides the content of every batch."""
        parts = (self.dataset.fingerprint, order.VERSION, self.length, self.size, self.seed, self.positions)
        return sha256(repr(parts).encode()).hexdigest()

    def row(self, index: int) -> Row:
        """Row `index` of the stream."""
        columns = self._rows(index, 1)
        return Row(*(columns[name][0] for name in Row._fields[:-1]), row=index)

    def batch(self, step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """Rows of the global batch of a step; slices joined in order are the whole batch.

        Arrays: ids, segments, positions, targets, documents Int32 [row, pos]; weights Float32 [row, pos];
        rows Int32 [row], the global index of each modulo 2**31. Raises ValueError for a slice with a stride.
        """
        start, stop, stride = rows.indices(self.size)
        if stride != 1 or step < 0:
            raise ValueError(f"batch(step={step}, rows={rows}): needs step >= 0 and a slice without stride")
        return self._rows(step * self.size + start, max(stop - start, 0))

    def _rows(self, first: int, count: int) -> dict[str, np.ndarray]:
        shape = (count, self.length)
        # One more token than the rows hold: the target of the last.
        tokens, documents, places = self._span(first * self.length, (first + count) * self.length + 1)
        real = documents[:-1] >= 0
        follows = real & (documents[1:] == documents[:-1])
        column = np.broadcast_to(np.arange(self.length), shape)
        place = places[:-1].reshape(shape)
        starts = (place == 0) | (column == 0)
        if self.positions == "row":
            place = column - np.maximum.accumulate(np.where(starts, column, 0), axis=1)
        real = real.reshape(shape)
        pad = self.dataset.pad
        return {
            "ids": tokens[:-1].reshape(shape),
            "segments": np.where(real, np.cumsum(starts, axis=1), 0).astype(np.int32),
            "positions": np.where(real, place, 0).astype(np.int32),
            "targets": np.where(follows, tokens[1:], pad).astype(np.int32).reshape(shape),
            "weights": follows.astype(np.float32).reshape(shape),
            "documents": (np.where(real, documents[:-1].reshape(shape), 0) % 2**31).astype(np.int32),
            "rows": ((first + np.arange(count)) % 2**31).astype(np.int32),
        }

    def _span(
        self, start: int, stop: int
    ) -> tuple[Int32[np.ndarray, " n"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Tokens [start, stop) of the stream, the document of each (-1 is padding), its place there."""
        length = self.epoch_tokens
        parts = []
        while start < stop:
            epoch = start // length
            if self.seed is None and epoch > 0:
                none = np.full(stop - start, -1, np.int64)
                parts.append((np.full(stop - start, self.dataset.pad, np.int32), none, none))
                break
            end = min(stop, (epoch + 1) * length)
            parts.append(self._part(epoch, start - epoch * length, end - epoch * length))
            start = end
        tokens, documents, places = map(np.concatenate, zip(*parts))
        return tokens, documents, places

    def _part(self, epoch: int, start: int, stop: int):
        """The same for tokens [start, stop) of one epoch."""
        layout = _layout(self.dataset, self.seed, epoch)
        low, high = np.searchsorted(layout.ends, [start, stop - 1], side="right")
        chosen = layout.order[low : high + 1]
        begins = layout.ends[low : high + 1] - self.dataset.lengths_of(chosen)
        cut = np.clip(layout.ends[low : high + 1], start, stop) - np.clip(begins, start, stop)
        places = np.arange(start, stop) - np.repeat(begins, cut)
        tokens = self.dataset.tokens[np.repeat(self.dataset.offsets[chosen], cut) + places]
        return tokens.astype(np.int32), np.repeat(epoch * self.dataset.documents + chosen, cut), places


@lru_cache(maxsize=4)
def _layout(dataset: Dataset, seed: int | None, epoch: int) -> order.Epoch:
    return order.arrange(dataset.lengths, seed, epoch)


def training(dataset: Dataset, packing: Packing, *, batch: int, length: int, seed: int) -> Rows:
    """Endless rows: as many epochs as a run needs, each in an order of its own."""
    match packing:
        case Stream(positions=positions):
            return Rows(dataset, length, batch, seed, positions)
    raise UsageError(f"packing: no rows for {type(packing).__name__}")


def held_out(dataset: Dataset, packing: Packing, *, batch: int, length: int) -> Rows:
    """One pass in the dataset's own order: `steps` batches predict every token but `bos` exactly once.

    The rest of the last batch is padding of weight 0. Bits per byte are the summed negative log-probabilities
    in nats / (ln 2 * dataset.bytes); the prediction of each `eos` is part of the sum.
    """
    match packing:
        case Stream(positions=positions):
            return Rows(dataset, length, batch, None, positions)
    raise UsageError(f"packing: no rows for {type(packing).__name__}")
