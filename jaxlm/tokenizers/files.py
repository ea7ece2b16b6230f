"""Files of tokenizers, read with words for what can be wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxlm.config.errors import Failure, UsageError


def read(path: Path, field: str = "tokenizer.path") -> bytes:
    """A file's bytes. Raises UsageError that names the field if it is missing, Failure if it cannot be read."""
    if not path.name:
        raise UsageError(f"{field} is empty: name the file")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"{field}: there is no file {str(path)!r}") from error
    except OSError as error:
        raise Failure(f"cannot read the tokenizer {str(path)!r}: {error.strerror}") from error


def text(path: Path, field: str = "tokenizer.path") -> str:
    """A file as UTF-8. Raises as `read` does, and Failure for other bytes."""
    try:
        return read(path, field).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(f"{str(path)!r} is damaged: {error.reason} at byte {error.start}, not UTF-8") from error


def tree(path: Path, field: str = "tokenizer.path") -> dict[str, Any]:
    """A JSON object in a file. Raises as `text` does, and Failure for other JSON or a name given twice."""
    try:
        found = json.loads(text(path, field), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Failure(f"{str(path)!r} is damaged or no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Failure(f"{str(path)!r} is not a tokenizer's file: it holds no JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands in it twice")
    return found


def distinct(path: Path, tokens: Iterable[tuple[str, Any]]) -> dict[str, int]:
    """Token -> id. Raises Failure for an id that is no number from 0 on, and one that two tokens share."""
    of: dict[int, str] = {}
    for token, number in tokens:
        if type(number) is not int or number < 0:
            raise Failure(f"{str(path)!r} is damaged: the id of {token!r} is {number!r}")
        if of.setdefault(number, token) != token:
            raise Failure(f"{str(path)!r} is damaged: {of[number]!r} and {token!r} have one id, {number}")
    return {token: number for number, token in of.items()}
