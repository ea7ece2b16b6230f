"""Rows of tokens: what any process needs to know of any step, from (seed, step) alone.

Row i of step s is row s * batch + i of a plan, which says for every row which places of which documents it holds
(`data/stream.py`, `data/best_fit.py`). A document is `bos, text..., eos`, or what a chat template made of a
conversation; a token is predicted from those before it in its document, so the first never is, and nothing is
predicted from the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from jaxlm.config.data import BestFit, Packing, Stream
from jaxlm.config.distillation import LIKELY
from jaxlm.config.errors import Failure, UsageError
from jaxlm.data import best_fit, order, stream
from jaxlm.data.dataset import Dataset

APART = 1_000_003
"""Between the ids of a document's parts in rows that count positions anew."""


class Row(NamedTuple):
    """One row of T tokens."""

    ids: Int32[np.ndarray, " pos"]
    segments: Int32[np.ndarray, " pos"]
    """Documents of the row, counted from 1; 0 is padding."""
    positions: Int32[np.ndarray, " pos"]
    targets: Int32[np.ndarray, " pos"]
    """The next token of the same document; padding where there is none."""
    weights: Float32[np.ndarray, " pos"]
    """1 where there is a target that is to be predicted, else 0."""
    documents: Int32[np.ndarray, " pos"]
    """epoch * documents + document, modulo 2**31: a key for randomness, with the position. Where rows count these
    anew, a part of a document that begins at another place has another id.
    """
    row: int


class Plan(Protocol):
    """Which places of which documents each row holds."""

    rows: int
    """Rows that hold one epoch, the last perhaps in part."""
    version: tuple
    """What tells this way of laying rows out from others; empty for the first, that of streams."""

    def places(self, first: int, count: int) -> tuple[Int64[np.ndarray, "row pos"], Int64[np.ndarray, "row pos"]]:
        """For rows first .. first + count - 1: epoch * documents + document (-1 is padding), the place in it."""


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
    packing: Packing = Stream()
    begins: Bool[np.ndarray, " vocab"] | None = None
    """Which tokens begin a word: with it each token's word is told, as the column `words`."""
    copies: int = 0
    """Documents of every so many epochs share ids, for what is drawn for them once; 0 tells all apart."""
    ends: Bool[np.ndarray, " vocab"] | None = None
    """Which tokens end a sentence: with it that is told of each token, as the column `ends`."""

    def __post_init__(self):
        if self.length < 1 or self.size < 1:
            raise UsageError(f"train.length={self.length}, train.batch={self.size}: both must be at least 1")
        if self.dataset.documents == 0 or self.dataset.offsets[-1] == 0:
            raise Failure("there are no documents to make rows of: the dataset is empty")

    @cached_property
    def plan(self) -> Plan:
        """Where documents lie in rows."""
        match self.packing:
            case Stream():
                return stream.Plan(self.dataset, self.length, self.seed)
            case BestFit():
                return best_fit.Plan(self.dataset, self.length, self.seed)
        raise UsageError(f"packing: no rows for {type(self.packing).__name__}")

    @property
    def epoch_tokens(self) -> int:
        """L, the tokens of an epoch."""
        return int(self.dataset.offsets[-1])

    @property
    def steps(self) -> int:
        """Batches that hold one epoch, the last perhaps in part."""
        return -(-self.plan.rows // self.size)

    @property
    def full(self) -> float:
        """Share of an epoch's rows that is not padding."""
        return self.epoch_tokens / (self.plan.rows * self.length)

    @property
    def more(self) -> dict[str, tuple[int, ...]]:
        """The columns that not all rows have: what each has beyond rows and positions."""
        told = {"words": self.begins, "ends": self.ends, "labels": self.dataset.labels}
        found = {name: () for name, there in told.items() if there is not None}
        likeliest = self.dataset.likeliest
        return found | ({} if likeliest is None else dict.fromkeys(LIKELY, likeliest.tokens.shape[1:]))

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides the content of every batch."""
        shape = (order.VERSION, self.length, self.size, self.seed, self.packing.positions)
        shape += (self.copies,) if self.copies else ()
        shape += (APART,) if self.packing.positions == "row" else ()
        shape += () if self.dataset.likeliest is None else (self.dataset.likeliest.fingerprint,)
        return sha256(repr((self.dataset.fingerprint, *shape, *self.plan.version)).encode()).hexdigest()

    def row(self, index: int) -> Row:
        """Row `index` of the plan."""
        columns = self._rows(index, 1)
        return Row(*(columns[name][0] for name in Row._fields[:-1]), row=index)

    def batch(self, step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """Rows of the global batch of a step; slices joined in order are the whole batch.

        Arrays: ids, segments, positions, targets, documents, and those that `more` names, Int32 [row, pos]; weights
        Float32 [row, pos]; rows Int32 [row], the global index of each modulo 2**31. Labels stand at the first token
        of their document, -1 at all others. `likely` is Float32 and `likely_tokens` Int32, both [row, pos,
        likeliest]; of padding they mean nothing. Raises ValueError for a slice with a stride.
        """
        start, stop, stride = rows.indices(self.size)
        if stride != 1 or step < 0:
            raise ValueError(f"batch(step={step}, rows={rows}): needs step >= 0 and a slice without stride")
        return self._rows(step * self.size + start, max(stop - start, 0))

    def _rows(self, first: int, count: int) -> dict[str, np.ndarray]:
        data = self.dataset
        keys, places = self.plan.places(first, count)
        real = keys >= 0
        document = np.where(real, keys, 0) % data.documents
        at = data.offsets[document] + places
        follows = real & (at + 1 < data.offsets[document + 1])
        after = np.where(follows, at + 1, 0)
        predicted = follows if data.predicted is None else follows & data.predicted[after].astype(bool)
        column = np.broadcast_to(np.arange(self.length), keys.shape)
        starts, heads = np.diff(keys, prepend=-2, axis=1) != 0, places == 0
        known = keys % (self.copies * data.documents) if self.copies else keys
        if self.packing.positions == "row":
            # What a row holds of a document is a document of its own to whatever is drawn by (document, position).
            begins = np.take_along_axis(places, np.maximum.accumulate(np.where(starts, column, 0), axis=1), axis=1)
            known = known + begins * APART
            places = column - np.maximum.accumulate(np.where(starts, column, 0), axis=1)
        columns = {
            "ids": np.where(real, data.tokens[at], data.pad).astype(np.int32),
            "segments": np.where(real, np.cumsum(starts, axis=1), 0).astype(np.int32),
            "positions": np.where(real, places, 0).astype(np.int32),
            "targets": np.where(follows, data.tokens[after], data.pad).astype(np.int32),
            "weights": predicted.astype(np.float32),
            "documents": (np.where(real, known, 0) % 2**31).astype(np.int32),
            "rows": ((first + np.arange(count)) % 2**31).astype(np.int32),
        }
        if self.begins is not None:
            columns["words"] = _words(columns, self.begins)
        if data.labels is not None:
            columns["labels"] = np.where(real & heads, data.labels[document], -1).astype(np.int32)
        if self.ends is not None:
            columns["ends"] = self.ends[columns["ids"]].astype(np.int32)
        if data.likeliest is not None:
            found = (data.likeliest.logs[at], data.likeliest.tokens[at].astype(np.int32))
            columns |= dict(zip(LIKELY, found, strict=True))
        return columns


def _words(columns: dict[str, np.ndarray], begins: Bool[np.ndarray, " vocab"]) -> Int32[np.ndarray, "row pos"]:
    """For each token the position of its word's first one, or of the first that the row has of it.

    The token that begins a document belongs to its first word, where that has no white space before it.
    """
    ids, segments = columns["ids"], columns["segments"]
    starts = begins[ids]
    starts[:, 1:] |= segments[:, 1:] != segments[:, :-1]
    starts[:, 0] = True
    place = np.maximum.accumulate(np.where(starts, np.arange(ids.shape[1]), 0), axis=1)
    return np.take_along_axis(columns["positions"], place, axis=1)


def training(dataset: Dataset, packing: Packing, *, batch: int, length: int, seed: int, **more: Any) -> Rows:
    """Endless rows: as many epochs as a run needs, each in an order of its own; `more` are fields of `Rows`."""
    return Rows(dataset, length, batch, seed, packing, **more)


def held_out(dataset: Dataset, packing: Packing, *, batch: int, length: int, **more: Any) -> Rows:
    """One pass in the dataset's own order: `steps` batches predict every token to be predicted exactly once.

    The rest of the last batch is padding of weight 0. Bits per byte are the summed negative log-probabilities
    in nats / (ln 2 * dataset.bytes); the prediction of each `eos` is part of the sum.
    """
    return Rows(dataset, length, batch, None, packing, **more)
