"""Tokenized documents on disk, memory-mapped: one flat file of tokens, and where each document begins."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, Integer, UInt8

from jaxlm.config.errors import Failure
from jaxlm.tokenizers import Tokenizer

FORMAT = 1
TOKENS, PREDICTED, OFFSETS, MANIFEST = "tokens.bin", "predicted.bin", "offsets.bin", "manifest.json"
LABELS = "labels.bin"


class Tokenized(NamedTuple):
    """A document as it is written."""

    ids: Int32[np.ndarray, " tokens"]
    """All of them, those that begin and end it included."""
    predicted: Bool[np.ndarray, " tokens"] | None
    """Which of them the model is to predict; None is all but the first."""
    bytes: int
    """UTF-8 bytes of the text that is predicted."""
    label: int | None = None
    """The number of its class."""


class Likeliest(NamedTuple):
    """A teacher's most likely next tokens behind each token of a dataset."""

    logs: Float32[np.ndarray, "tokens likeliest"]
    """Log-probabilities in nats, falling."""
    tokens: Integer[np.ndarray, "tokens likeliest"]
    """Whose they are."""
    fingerprint: str
    """Of the teacher, and of all that decided what it was shown."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Documents as tokens; nothing lies between them."""

    tokens: Integer[np.ndarray, " tokens"]
    """All documents, one after another; unsigned 16-bit where the vocabulary allows it."""
    offsets: Int64[np.ndarray, " documents_plus_1"]
    """Document i is tokens[offsets[i] : offsets[i + 1]]."""
    bytes: int
    """UTF-8 bytes of the text that is predicted: the denominator of bits per byte."""
    vocab: int
    pad: int
    fingerprint: str
    """sha256 of all arrays."""
    predicted: UInt8[np.ndarray, " tokens"] | None = None
    """1 where the token is to be predicted from those before it, else 0; None predicts all but the first of each
    document."""
    labels: Int32[np.ndarray, " documents"] | None = None
    """The class of each document; None where they have none."""
    likeliest: Likeliest | None = None
    """What a teacher says at each place, where it was written down."""

    @property
    def documents(self) -> int:
        return len(self.offsets) - 1

    @property
    def classes(self) -> dict[int, int]:
        """Documents by label; none where they have none."""
        if self.labels is None:
            return {}
        return {int(one): int(count) for one, count in zip(*np.unique(self.labels, return_counts=True))}

    @property
    def lengths(self) -> Int64[np.ndarray, " documents"]:
        """Tokens of each document, those that begin and end it included."""
        return np.diff(self.offsets)

    def lengths_of(self, indices: Int64[np.ndarray, " chosen"]) -> Int64[np.ndarray, " chosen"]:
        return self.offsets[indices + 1] - self.offsets[indices]


def in_memory(
    documents: Iterable[Sequence[SupportsIndex] | Integer[np.ndarray, " _"]],
    *,
    bytes: int,
    vocab: int,
    pad: int,
    predicted: Iterable[Sequence[SupportsIndex]] | None = None,
    labels: Sequence[int] | None = None,
) -> Dataset:
    """A dataset of token arrays that already begin with `bos` and end with `eos`."""
    arrays = [np.asarray(document, token_dtype(vocab)) for document in documents]
    tokens = np.concatenate([*arrays, np.empty(0, token_dtype(vocab))])
    marks = None if predicted is None else np.concatenate([np.asarray(one, np.uint8) for one in predicted])
    offsets = np.cumsum([0, *map(len, arrays)]).astype(np.int64)
    digest = sha256(tokens.tobytes())
    classes = None if labels is None else np.asarray(labels, np.int32)
    for part in (marks, offsets, classes):
        digest.update(b"" if part is None else part.tobytes())
    return Dataset(tokens, offsets, bytes, vocab, pad, digest.hexdigest(), marks, classes)


def texts(found: Iterable[str], tokenizer: Tokenizer, *, batch: int = 256) -> Iterator[Tokenized]:
    """Texts between `bos` and `eos`, tokenized a batch at a time."""
    for group in batches(found, batch):
        for text, ids in zip(group, tokenizer.encode_batch(group), strict=True):
            whole = np.concatenate([[tokenizer.bos], ids, [tokenizer.eos]]).astype(np.int32)
            yield Tokenized(whole, None, len(text.encode()))


@dataclass(frozen=True)
class Plain:
    """How texts become tokens: all of them, and all of each."""

    def tokenized(
        self, documents: Iterable[str], tokenizer: Tokenizer, report: Callable[[str], None]
    ) -> Iterator[Tokenized]:
        """See `texts`."""
        return texts(documents, tokenizer)

    def said(self, documents: Iterable[str]) -> Iterator[str]:
        """The texts themselves."""
        return iter(documents)


def write(documents: Iterable[Tokenized], tokenizer: Tokenizer, directory: Path) -> None:
    """Writes documents, one after another, into `directory`, which then exists whole or not at all.

    Either all of them say what is predicted, or none; and all have a label, or none.
    """
    dtype = token_dtype(tokenizer.vocab)
    offsets, size, labels = [0], 0, []
    with atomic(directory) as partial:
        with (partial / TOKENS).open("wb") as tokens, (partial / PREDICTED).open("wb") as predicted:
            for document in documents:
                tokens.write(document.ids.astype(dtype).tobytes())
                if document.predicted is not None:
                    predicted.write(document.predicted.astype(np.uint8).tobytes())
                if document.label is not None:
                    labels.append(document.label)
                offsets.append(offsets[-1] + len(document.ids))
                size += document.bytes
        marked = (partial / PREDICTED).stat().st_size
        if not marked:
            (partial / PREDICTED).unlink()
        elif marked != offsets[-1]:
            raise ValueError("some documents say what is predicted, and others do not")
        if labels and len(labels) != len(offsets) - 1:
            raise ValueError("some documents have a label, and others have none")
        (partial / OFFSETS).write_bytes(np.array(offsets, "<i8").tobytes())
        if labels:
            (partial / LABELS).write_bytes(np.array(labels, "<i4").tobytes())
        there = {TOKENS: True, PREDICTED: marked, OFFSETS: True, LABELS: labels}
        files = [name for name, found in there.items() if found]
        manifest = {
            "format": FORMAT,
            "dtype": dtype.str,
            "documents": len(offsets) - 1,
            "tokens": offsets[-1],
            "bytes": size,
            "vocab": tokenizer.vocab,
            "pad": tokenizer.pad,
            "tokenizer": tokenizer.fingerprint,
            "fingerprint": _digest(partial / name for name in files),
            "predicted": bool(marked),
            "labels": bool(labels),
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _digest(paths: Iterable[Path]) -> str:
    digest = sha256()
    for path in paths:
        with path.open("rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
    return digest.hexdigest()


def load(directory: Path) -> Dataset:
    """The dataset that `write` left, memory-mapped. Raises Failure if a file is missing or cut short."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
        tokens = mapped(directory / TOKENS, np.dtype(manifest["dtype"]), manifest["tokens"])
        offsets = mapped(directory / OFFSETS, np.dtype("<i8"), manifest["documents"] + 1)
        marked = manifest.get("predicted")  # absent where an earlier version wrote plain documents
        predicted = mapped(directory / PREDICTED, np.dtype("u1"), manifest["tokens"]) if marked else None
        labeled = manifest.get("labels")
        labels = mapped(directory / LABELS, np.dtype("<i4"), manifest["documents"]) if labeled else None
    except (OSError, ValueError, KeyError) as error:
        raise Failure(f"the tokens in {str(directory)!r} are damaged ({error}): remove the directory") from error
    facts = (manifest[name] for name in ("bytes", "vocab", "pad", "fingerprint"))
    return Dataset(tokens, offsets, *facts, predicted, labels)


def mapped(path: Path, dtype: np.dtype, count: int) -> np.ndarray:
    """So many numbers in a file. Raises ValueError for a file of another size."""
    if path.stat().st_size != count * dtype.itemsize:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {count * dtype.itemsize}")
    return np.asarray(np.memmap(path, dtype, "r", shape=(count,))) if count else np.empty(0, dtype)


def token_dtype(vocab: int) -> np.dtype:
    """The type that tokens have on disk."""
    return np.dtype("<u2" if vocab <= 2**16 else "<i4")


def batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of so many, the last perhaps shorter."""
    group: list[str] = []
    for text in texts:
        group.append(text)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


@contextmanager
def atomic(directory: Path) -> Iterator[Path]:
    """A scratch directory that takes the place of `directory` when the block ends well.

    Several processes may write the same one: the first to finish wins, and the others' equal work is dropped.
    Raises Failure when the file system refuses (no space, no permission).
    """
    # Not the process id: containers that share a disk also share those.
    partial = directory.with_name(f"{directory.name}.incomplete-{uuid.uuid4().hex[:12]}")
    try:
        partial.mkdir(parents=True)
        yield partial
        if not directory.exists():
            _rename(partial, directory)
    except OSError as error:
        raise Failure(f"cannot write {str(directory)!r}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, directory: Path) -> None:
    try:
        os.rename(partial, directory)
    except OSError:
        if not directory.exists():  # Else another process was first.
            raise


def once(directory: Path, make: Callable[[Path], None]) -> Path:
    """`directory`, made by `make(scratch)` unless it is already there."""
    if not directory.exists():
        with atomic(directory) as partial:
            make(partial)
    return directory
