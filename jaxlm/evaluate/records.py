"""Items of local files, as dicts."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import random
import re
import zipfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.records import Records

VARIABLE = "JAXLM_DATA"
"""The environment variable with the directory of data."""
SUFFIXES = {".jsonl": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".txt": "text"}
FILE = "file"
"""A field that every item has besides its own: the name of its file without the ending."""

Item = dict[str, Any]


def root_of(given: str | None) -> Path:
    """The directory that paths are below: what is given, else JAXLM_DATA, else the current one."""
    return Path(given or os.environ.get(VARIABLE) or ".")


def read(records: Records, root: Path) -> list[Item]:
    """The items in the order of the files, those that `each` and `limit` leave.

    Raises UsageError for a file that is not there, says where it can be got, and for a place in it or an ending
    that is not known; Failure for a damaged one.
    """
    found = []
    for name, data in _files(records, root):
        rows = list(_rows(records, name, data))
        found += [{FILE: Path(name).stem, **row} for row in rows[: records.each or None]]
    if not found:
        raise UsageError(f"{root / records.path} has no items")
    return limited(found, records)


def limited(items: list[Item], records: Records) -> list[Item]:
    """The first `records.limit` items, or as many by `records.seed`, in their order."""
    if not records.limit or records.limit >= len(items):
        return items
    if records.seed is None:
        return items[: records.limit]
    drawn = random.Random(records.seed).sample(range(len(items)), records.limit)
    return [items[index] for index in sorted(drawn)]


def _files(records: Records, root: Path) -> Iterator[tuple[str, bytes]]:
    path = root / records.path
    if not records.path or not path.is_file():
        source = f"; it can be got from {records.source}" if records.source else ""
        raise UsageError(f"there is no {path}{source}. Name the directory it is in by --data DIR or {VARIABLE}")
    if path.suffix != ".zip":
        yield str(path), path.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith("/") and fnmatch(name, records.members):
                    yield name, archive.read(name)
    except zipfile.BadZipFile as error:
        raise Failure(f"{path} is damaged: {error}") from None


def _rows(records: Records, name: str, data: bytes) -> Iterator[Item]:
    kind = SUFFIXES.get(Path(name).suffix) if records.format == "suffix" else records.format
    if kind is None:
        raise UsageError(f"{name}: its ending tells no format, say which: data.format of {', '.join(FORMATS)}")
    try:
        text = data.decode("utf-8-sig")
        for row in FORMATS[kind](text, records):
            yield from _below(row, records.rows, records.names)
    except (ValueError, csv.Error) as error:
        raise Failure(f"{name} is no {kind}: {error}") from None


def _pieces(text: str, split: str) -> list[Item]:
    """A text, or what begins at each match; what stands before the first is an item unless it is blank."""
    starts = [found.start() for found in re.finditer(split, text)] if split else []
    cuts = [0, *starts, len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(cuts)]
    return [{"text": piece} for piece in pieces if piece.strip()]


def _json_lines(text: str, records: Records) -> Iterator[Item]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None


def _table(text: str, delimiter: str) -> Iterator[Item]:
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for row in rows:
        # What a row has too much is under None, and None is what it lacks.
        if None in row or None in row.values():
            columns = len(rows.fieldnames or ())
            found = columns + len(row[None]) if None in row else sum(each is not None for each in row.values())
            raise ValueError(f"line {rows.line_num}: {found} values, and there are {columns} columns")
        yield row


FORMATS: dict[str, Any] = {
    "jsonl": _json_lines,
    "json": lambda text, records: [json.loads(text)],
    "csv": lambda text, records: _table(text, ","),
    "tsv": lambda text, records: _table(text, "\t"),
    "text": lambda text, records: _pieces(text, records.split),
    "lines": lambda text, records: ({"text": line} for line in text.splitlines() if line.strip()),
}


def _below(node: Any, path: str, names: tuple[str, ...], outer: Item | None = None) -> Iterator[Item]:
    """The objects of all lists at a path, with the plain fields of what they lie in."""
    if isinstance(node, list) and not path and names and not any(isinstance(each, dict | list) for each in node):
        if len(node) != len(names):
            raise UsageError(f"data.names: {len(names)} names, and there is an item of {len(node)} values")
        node = dict(zip(names, node))
    if isinstance(node, list):
        for each in node:
            yield from _below(each, path, names, outer)
        return
    if not isinstance(node, dict):
        raise UsageError(f"data.rows: expected objects, and there is {str(node)[:40]!r}")
    whole = {**(outer or {}), **node}
    if not path:
        yield whole
        return
    name, _, rest = path.partition(".")
    if name not in node:
        raise UsageError(f"data.rows: there is no {name!r} among {', '.join(node)}")
    plain = {key: value for key, value in whole.items() if not isinstance(value, dict | list)}
    yield from _below(node[name], rest, names, plain)


def without(items: Iterable[Item], taken: Iterable[Item]) -> list[Item]:
    """Those items that are not among others."""
    known = {json.dumps(one, sort_keys=True) for one in taken}
    return [one for one in items if json.dumps(one, sort_keys=True) not in known]
