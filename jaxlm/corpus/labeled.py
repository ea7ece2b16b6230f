"""Texts with labels, out of JSON lines and tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.config.data import Labeled
from jaxlm.config.errors import Failure, UsageError
from jaxlm.corpus.deduplicate import key
from jaxlm.corpus.documents import Document, json_object, lines, named_files

KINDS = (".jsonl", ".csv", ".tsv")


class Example(NamedTuple):
    """What a labeled document says."""

    label: int
    texts: tuple[str, ...]
    """One text, or the two of a pair."""


def labeled(data: Labeled) -> tuple[list[Document], list[Document]]:
    """(Documents of `paths`, those of `held_out_paths`), in order, each as JSON that `example` reads.

    Raises UsageError for a path that names no such file, and for names that are not distinct; Failure, with the
    file and the line, for one that cannot be read, lacks a field, or has a label that is none of `data.names`.
    """
    found = list(_records(data, data.paths, "data.paths"))
    given = list(_records(data, data.held_out_paths, "data.held_out_paths")) if data.held_out_paths else []
    if data.held_out_paths and not given:
        raise Failure("data.held_out_paths: there is no text in these files")
    numbers = _numbers(data, [one[1] for one in (*found, *given)])
    return tuple([_document(*one, numbers) for one in part] for part in (found, given))


def example(document: str) -> Example:
    """The label and the texts of a labeled document's text."""
    label, *texts = json.loads(document)
    return Example(label, tuple(texts))


def plain(document: Document) -> Document:
    """The same document without its label."""
    return Document(document.name, "\n\n".join(example(document.text).texts))


def others(train: Sequence[Document], held_out: Sequence[Document]) -> list[Document]:
    """Training documents whose texts are not those of a held-out one, whatever the labels."""
    known = {key(plain(one).text) for one in held_out}
    return [one for one in train if key(plain(one).text) not in known]


Place = str
Record = tuple[str, Any, tuple[str, ...], Place]
"""Name, label as it is found, texts, where it stands."""


def _records(data: Labeled, paths: tuple[str, ...], option: str) -> Iterator[Record]:
    for path, name in named_files(paths, KINDS, option):
        for number, record in _rows(path):
            place = f"{str(path)!r}, line {number}"
            fields = [data.text, *([data.second] if data.second else [])]
            for field in (*([data.label] if data.label else []), *fields):
                if field not in record:
                    has = ", ".join(map(repr, record)) or "nothing"
                    raise Failure(
                        f"{place}: there is no {field!r}, only {has}; set data.text, data.second and data.label"
                    )
            texts = tuple(_text(record[field], field, place) for field in fields)
            yield f"{name}:{number}", record[data.label] if data.label else 0, texts, place


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Records with the numbers of their lines."""
    if path.suffix == ".jsonl":
        for number, line in lines(path):
            yield number, json_object(line, f"{str(path)!r}, line {number}")
        return
    # A table of tabs has no quotes: one in its text is a character like others.
    tabs = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {}
    csv.field_size_limit(1 << 30)
    line = 1
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.reader(file, strict=True, **tabs)
            names = next(table, [])
            for row in table:
                line = table.line_num + 1
                if row and len(row) != len(names):
                    raise Failure(
                        f"{str(path)!r}, line {table.line_num}: {len(row)} values, and the first line has "
                        f"{len(names)} names"
                    )
                if row:
                    yield table.line_num, dict(zip(names, row, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Failure(f"cannot read {str(path)!r} from line {line} on: {error}") from error


def _text(value: Any, field: str, place: Place) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Failure(f"{place}: {field!r} is {value!r}: expected a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Failure(f"{place}: {field!r} holds half a character, which is no text") from None
    return value


def _numbers(data: Labeled, labels: Sequence[Any]) -> dict[str, int]:
    """Label as it is written -> number."""
    written = {str(label) for label in labels}
    if data.names:
        if len(set(data.names)) < len(data.names):
            raise UsageError("data.names: a name stands twice")
        return {name: number for number, name in enumerate(data.names)}
    if not all(map(_number, written)):
        return {name: number for number, name in enumerate(sorted(written))}
    if odd := sorted(
        name for name in written if not (name.isascii() and name.isdigit() and str(int(name)) == name)
    ):
        raise Failure(f"data: the label {odd[0]!r} is no whole number from 0; state what labels mean in data.names")
    return {name: int(name) for name in written}


def _number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _document(name: str, label: Any, texts: tuple[str, ...], place: Place, numbers: dict[str, int]) -> Document:
    if not isinstance(label, str | int) or isinstance(label, bool) or not str(label).strip():
        raise Failure(f"{place}: the label is {label!r}: expected a name, or a number from 0")
    if str(label) not in numbers:
        known = ", ".join(map(repr, numbers))
        raise Failure(f"{place}: the label {label!r} is none of data.names: {known}")
    return Document(name, json.dumps([numbers[str(label)], *texts], ensure_ascii=False))
