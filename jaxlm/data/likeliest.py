"""A teacher's likeliest tokens behind each token of a dataset, on disk: written once, for any number of students.

Two flat files with a line for each token, as the dataset's own, and a manifest. Until all is written they lie
beside, with the number of rows that are done: whoever writes goes on there. Several who write the same do no harm.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, Integer

from jaxlm.config.errors import Failure
from jaxlm.data.dataset import Likeliest, mapped, token_dtype

FORMAT = 1
LOGS, TOKENS, MANIFEST, DONE = "logs.bin", "tokens.bin", "manifest.json", "done"
EVERY = 30.0
"""Seconds of work that may be lost."""


class Said(NamedTuple):
    """What a teacher says at some places of a dataset."""

    places: Int64[np.ndarray, " some"]
    """Numbers of tokens of the dataset."""
    logs: Float32[np.ndarray, "some likeliest"]
    """Log-probabilities in nats of what may follow each, falling."""
    tokens: Integer[np.ndarray, "some likeliest"]


def done(directory: Path) -> int | None:
    """Rows that are written; None for all."""
    if directory.exists():
        return None
    found = _unfinished(directory) / DONE
    return int(found.read_text()) if found.exists() else 0


def write(directory: Path, said: Iterable[Said], first: int, each: int, vocab: int, facts: dict[str, Any]) -> None:
    """Writes what is said of rows from `first` on, `each` of them at a time; `directory` appears when all is there.

    Raises Failure where the file system refuses.
    """
    partial, dtype, synced = _unfinished(directory), token_dtype(vocab), time.monotonic()
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _opened(partial / LOGS) as logs, _opened(partial / TOKENS) as tokens:
            for step, one in enumerate(said, 1):
                _put(logs, one.places, one.logs.astype("<f4"))
                _put(tokens, one.places, one.tokens.astype(dtype))
                if time.monotonic() - synced > EVERY:
                    _synced(logs, tokens)
                    _replace(partial / DONE, str(first + step * each))
                    synced = time.monotonic()
            _synced(logs, tokens)
        _replace(partial / MANIFEST, json.dumps({"format": FORMAT, "dtype": dtype.str, **facts}, indent=2) + "\n")
        (partial / DONE).unlink(missing_ok=True)
        os.rename(partial, directory)
    except OSError as error:
        if not directory.exists():  # else another process was first
            raise Failure(f"cannot write {str(directory)!r}: {error}") from error


def load(directory: Path, size: int, count: int, fingerprint: str) -> Likeliest:
    """What `write` left for `size` tokens, memory-mapped. Raises Failure where a file is missing or cut short."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
        logs = mapped(directory / LOGS, np.dtype("<f4"), size * count)
        tokens = mapped(directory / TOKENS, np.dtype(manifest["dtype"]), size * count)
    except (OSError, ValueError, KeyError) as error:
        raise Failure(f"what the teacher said in {str(directory)!r} is damaged ({error}): remove it") from error
    return Likeliest(logs.reshape(size, count), tokens.reshape(size, count), fingerprint)


def _unfinished(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.unfinished")


def _opened(path: Path) -> Any:
    """To be written at any place, whatever is there kept."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")


def _put(file: Any, places: Int64[np.ndarray, " some"], lines: np.ndarray) -> None:
    """Lines at their places, those of neighbors at once."""
    for run in np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) != 1) + 1):
        if len(run):
            file.seek(int(places[run[0]]) * lines[0].nbytes)
            file.write(lines[run[0] : run[-1] + 1].tobytes())


def _synced(*files: Any) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(text)
    os.replace(scratch, path)
