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
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int64, Integer

from jaxlm.config.errors import Failure
from jaxlm.tokenizers import Tokenizer

FORMAT = 1
TOKENS, OFFSETS, MANIFEST = "tokens.bin", "offsets.bin", "manifest.json"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Documents as tokens. Each is `bos, text..., eos`; nothing lies between them."""

    tokens: Integer[np.ndarray, " tokens"]
    """All documents, one after another; unsigned 16-bit where the vocabulary allows it."""
    offsets: Int64[np.ndarray, " documents_plus_1"]
    """Document i is tokens[offsets[i] : offsets[i + 1]]."""
    bytes: int
    """UTF-8 bytes of the documents' text: the denominator of bits per byte."""
    vocab: int
    pad: int
    fingerprint: str
    """sha256 of tokens and offsets."""

    @property
    def documents(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64[np.ndarray, " documents"]:
        """Tokens of each document, `bos` and `eos` included."""
        return np.diff(self.offsets)

    def lengths_of(self, indices: Int64[np.ndarray, " chosen"]) -> Int64[np.ndarray, " chosen"]:
        return self.offsets[indices + 1] - self.offsets[indices]


def in_memory(
    documents: Iterable[Sequence[SupportsIndex] | Integer[np.ndarray, " _"]],
    *,
    bytes: int,
    vocab: int,
    pad: int,
) -> Dataset:
    """A dataset of token arrays that already begin with `bos` and end with `eos`."""
    arrays = [np.asarray(document, _dtype(vocab)) for document in documents]
    tokens = np.concatenate([*arrays, np.empty(0, _dtype(vocab))])
    offsets = np.cumsum([0, *map(len, arrays)]).astype(np.int64)
    digest = sha256(tokens.tobytes())
    digest.update(offsets.tobytes())
    return Dataset(tokens, offsets, bytes, vocab, pad, digest.hexdigest())


def write(texts: Iterable[str], tokenizer: Tokenizer, directory: Path, *, batch: int = 256) -> None:
    """Tokenizes texts, a batch at a time, into `directory`, which then exists whole or not at all."""
    dtype = _dtype(tokenizer.vocab)
    digest, offsets, size = sha256(), [0], 0
    with atomic(directory) as partial:
        with (partial / TOKENS).open("wb") as file:
            for group in _batches(texts, batch):
                size += sum(len(text.encode()) for text in group)
                for ids in tokenizer.encode_batch(group):
                    data = np.concatenate([[tokenizer.bos], ids, [tokenizer.eos]]).astype(dtype).tobytes()
                    file.write(data)
                    digest.update(data)
                    offsets.append(offsets[-1] + len(ids) + 2)
        index = np.array(offsets, "<i8").tobytes()
        digest.update(index)
        (partial / OFFSETS).write_bytes(index)
        manifest = {
            "format": FORMAT,
            "dtype": dtype.str,
            "documents": len(offsets) - 1,
            "tokens": offsets[-1],
            "bytes": size,
            "vocab": tokenizer.vocab,
            "pad": tokenizer.pad,
            "tokenizer": tokenizer.fingerprint,
            "fingerprint": digest.hexdigest(),
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def load(directory: Path) -> Dataset:
    """The dataset that `write` left, memory-mapped. Raises Failure if a file is missing or cut short."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
        tokens = _map(directory / TOKENS, np.dtype(manifest["dtype"]), manifest["tokens"])
        offsets = _map(directory / OFFSETS, np.dtype("<i8"), manifest["documents"] + 1)
    except (OSError, ValueError, KeyError) as error:
        raise Failure(f"the tokens in {str(directory)!r} are damaged ({error}): remove the directory") from error
    return Dataset(tokens, offsets, manifest["bytes"], manifest["vocab"], manifest["pad"], manifest["fingerprint"])


def _map(path: Path, dtype: np.dtype, count: int) -> np.ndarray:
    if path.stat().st_size != count * dtype.itemsize:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {count * dtype.itemsize}")
    return np.asarray(np.memmap(path, dtype, "r", shape=(count,))) if count else np.empty(0, dtype)


def _dtype(vocab: int) -> np.dtype:
    return np.dtype("<u2" if vocab <= 2**16 else "<i4")


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
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
