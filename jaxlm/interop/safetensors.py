"""Directories of safetensors: one file, or several with an index. Knows no family of models."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxlm.config.errors import Failure, UsageError
from jaxlm.runs.files import explained

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = 5 * 10**9
"""Bytes of a file."""
DTYPES = ("F64", "F32", "F16", "BF16")
"""Formats of weights."""
NUMBERS = "I64"
"""The format of what is no weight and follows from the config, such as the positions in older files of encoders."""


class Tensors:
    """The tensors of a directory by name, read when they are asked for; shapes and formats are known at once."""

    def __init__(self, directory: Path, file: str = FILE):
        """Opens all files. Raises Failure for what is missing, truncated or no weight."""
        whole = file == FILE and (directory / INDEX).is_file()
        if not whole and not (directory / file).is_file():
            raise Failure(f"{directory} holds " + (f"neither {FILE} nor {INDEX}" if file == FILE else f"no {file}"))
        self._of = _index(directory / INDEX) if whole else {}
        self._directory = directory
        files = {one: _opened(directory / one) for one in sorted(set(self._of.values()) or {file})}
        held = {name: set(one.keys()) for name, one in files.items()}
        self._of = self._of or dict.fromkeys(held[file], file)
        for name, file in self._of.items():
            if name not in held[file]:
                raise Failure(f"{directory / file} does not hold {name}, which {INDEX} says it does")
        parts = {name: files[file].get_slice(name) for name, file in self._of.items()}
        parts = {name: part for name, part in parts.items() if part.get_dtype() != NUMBERS}
        for name, part in parts.items():
            if part.get_dtype() not in DTYPES:
                file = directory / self._of[name]
                raise Failure(f"{file}: {name} is {part.get_dtype()}, and weights are {', '.join(DTYPES)}")
        self.shapes = {name: tuple(part.get_shape()) for name, part in parts.items()}

    def read(self, name: str) -> Shaped[np.ndarray, "..."]:
        """One tensor whole.

        Its file is opened anew: an open one is mapped, and whatever was read of it stays in the process's memory.
        """
        with _opened(self._directory / self._of[name]) as file:
            return file.get_tensor(name)


def _index(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text())["weight_map"]
        names = {str(tensor): str(file) for tensor, file in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Failure(f"{path} is damaged: it has no map from tensors to files") from None
    for file in sorted(set(names.values())):
        if os.path.basename(file) != file:
            raise Failure(f"{path} names {file!r}, which is not a file beside it")
        if not (path.parent / file).is_file():
            raise Failure(f"{path} names {file}, which is not there")
    return names


def _opened(path: Path) -> Any:
    try:
        with explained(path, "read"):
            return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise Failure(f"{path} is damaged or no safetensors file: {error}") from None


def refuse_existing(directory: Path) -> None:
    """Raises UsageError for a directory that holds anything."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is there already: name a new directory")


def write(
    directory: Path,
    tensors: Iterable[tuple[str, Shaped[np.ndarray, "..."]]],
    files: Mapping[str, bytes],
    file: str = FILE,
) -> None:
    """Writes a new directory of tensors, in one file of this name or in several, and other files; whole, or not at
    all.

    Raises UsageError for a directory that is there already, Failure where it cannot be written.
    """
    refuse_existing(directory)
    with explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        with explained(directory):
            _write(directory, tensors, file)
            for name, data in files.items():
                (directory / name).write_bytes(data)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _write(directory: Path, tensors: Iterable[tuple[str, np.ndarray]], only: str) -> None:
    held = [sorted(one) for one in _shards(directory, tensors)]
    total, places, mask = len(held), {}, os.umask(0)
    os.umask(mask)
    for number, names in enumerate(held, start=1):
        file = only if total == 1 else f"model-{number:05d}-of-{total:05d}.safetensors"
        os.replace(directory / _part(number), directory / file)
        (directory / file).chmod(0o666 & ~mask)  # the library lets nobody else read it
        places |= dict.fromkeys(names, file)
    if total > 1:
        (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}, indent=1) + "\n")


def _part(number: int) -> str:
    return f"part-{number:05d}.tmp"


def _shards(directory: Path, tensors: Iterable[tuple[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    """Writes tensors as they come, a file as soon as it is full."""
    held: dict[str, np.ndarray] = {}
    number = 0

    def save() -> dict[str, np.ndarray]:
        save_file(held, directory / _part(number), metadata={"format": "pt"})
        return held

    for name, tensor in tensors:
        if held and sum(one.nbytes for one in held.values()) + tensor.nbytes > SHARD:
            number += 1
            yield save()
            held = {}
        held[name] = tensor
    if held:
        number += 1
        yield save()
