"""Where raw documents come from: the running Python itself, or text files."""

from __future__ import annotations

import glob
import importlib
import inspect
import json
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxlm.config.data import PythonText, Source, TextFiles
from jaxlm.config.errors import Failure, UsageError


@dataclass(frozen=True)
class Raw:
    """A document as found: bytes that may not be text at all."""

    name: str
    """Unique in its source, and the same on every machine that holds the same files."""
    raw: bytes


@dataclass(frozen=True)
class Document:
    """A document that passed the filters: Unicode text."""

    name: str
    text: str


def documents(source: Source) -> Iterator[Raw]:
    """All documents of a source, always in the same order.

    Raises UsageError for a path that names no file or no known kind, Failure for a file that cannot be read.
    """
    match source:
        case PythonText():
            return _python()
        case TextFiles(paths=paths):
            return _text_files(paths)
    raise UsageError(f"data.source: no reader for {type(source).__name__}")


def fingerprint(source: Source) -> str:
    """sha256 of every name and byte of a source, in order."""
    digest = sha256()
    for document in documents(source):
        digest.update(f"{document.name}\0{len(document.raw)}\0".encode())
        digest.update(document.raw)
    return digest.hexdigest()


# --- Python ------------------------------------------------------------------------------------------------

EXCLUDED = frozenset(
    [  # Installed packages differ by machine.
        *("site-packages", "dist-packages", "__pycache__", "lib-dynload"),
        # Tests, character tables and lib2to3's hundred near-copies teach little.
        *("test", "tests", "encodings", "idlelib", "turtledemo", "lib2to3"),
        # Its topics come as text.
        "pydoc_data",
    ]
)


def _python() -> Iterator[Raw]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield Raw(f"topics/{name}", topics[name].encode())
    for name in sorted(sys.builtin_module_names):
        yield Raw(f"builtin/{name}", docstrings(importlib.import_module(name)).encode())
    root = Path(sysconfig.get_path("stdlib"))
    for path in _sources(root):
        yield Raw(f"library/{path.relative_to(root).as_posix()}", _read(path))


def _sources(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in EXCLUDED and "-" not in name)
        # `_sysconfigdata_*` records how this machine's Python was built.
        yield from (
            Path(folder, name)
            for name in sorted(files)
            if name.endswith(".py") and not name.startswith("_sysconfigdata")
        )


def docstrings(module: ModuleType) -> str:
    """Public documentation of a module without source to read: its own, its functions', its classes'."""
    parts = [f'"""{inspect.getdoc(module) or module.__name__}"""']
    for name, value in sorted(vars(module).items()):
        # Of a hook that this process has set, the one that Python came with: sys.__unraisablehook__ and others.
        value = vars(module).get(f"__{name}__", value)
        if name.startswith("_") or not callable(value):
            continue
        parts.append(_entry("class " if inspect.isclass(value) else "def ", name, value, ""))
        if inspect.isclass(value):
            members = sorted((k, v) for k, v in vars(value).items() if not k.startswith("_") and callable(v))
            parts.extend(_entry("def ", key, member, "    ") for key, member in members)
    return "\n\n".join(parts) + "\n"


def _entry(kind: str, name: str, value: object, indent: str) -> str:
    signature = getattr(value, "__text_signature__", None) or ("" if kind == "class " else "(...)")
    text = (value.__doc__ if isinstance(value.__doc__, str) else "") or ""
    lines = inspect.cleandoc(text).splitlines()
    body = "\n".join(f"{indent}    {line}".rstrip() for line in ['"""' + (lines[0] if lines else ""), *lines[1:]])
    return f'{indent}{kind}{name}{signature}:\n{body}\n{indent}    """'


# --- files -------------------------------------------------------------------------------------------------


def _text_files(paths: tuple[str, ...]) -> Iterator[Raw]:
    found = named_files(paths, (".txt", ".jsonl"), "data.source.paths")
    return (raw for path, name in found for raw in _file(path, name))


def named_files(paths: tuple[str, ...], suffixes: tuple[str, ...], option: str) -> list[tuple[Path, str]]:
    """Files and globs, each file once, and their names: paths below the files' common folder, which survive a move
    of the whole.

    Raises UsageError, which names the option, where there is no such file or it is of another kind.
    """
    files = _expand(paths, suffixes, option)
    root = os.path.commonpath([file.parent for file in files])
    return [(file, Path(os.path.relpath(file, root)).as_posix()) for file in files]


def _expand(paths: tuple[str, ...], suffixes: tuple[str, ...], option: str) -> list[Path]:
    kinds = " or ".join(suffixes)
    if not paths:
        raise UsageError(f"{option} is empty: name at least one {kinds} file, or a glob")
    found: dict[Path, None] = {}
    for path in paths:
        matches = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else [path]
        if not matches:
            raise UsageError(f"{option}: the glob {path!r} matches no file")
        for match in map(Path, matches):
            if not match.is_file():
                raise UsageError(f"{option}: there is no file {str(match)!r}")
            if match.suffix not in suffixes:
                raise UsageError(f"{option}: {str(match)!r} is no {kinds} file")
            found[match.absolute()] = None
    return list(found)


def _file(path: Path, name: str) -> Iterable[Raw]:
    if path.suffix == ".txt":
        return [Raw(name, _read(path))]
    return (Raw(f"{name}:{number}", _field(line, path, number)) for number, line in lines(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {str(path)!r}: {error.strerror}") from error


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers from 1. Raises Failure if it cannot be read."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise Failure(f"cannot read {str(path)!r}: {error.strerror}") from error


def json_object(line: bytes, place: str) -> dict[str, Any]:
    """The JSON object of a line. Raises Failure, with its place, for anything else."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise Failure(f"{place}: not JSON ({error}); repair or remove the line") from error
    if not isinstance(record, dict):
        raise Failure(f"{place}: expected an object, found {type(record).__name__}")
    return record


def _field(line: bytes, path: Path, number: int) -> bytes:
    """The bytes of `text`; a line that is not UTF-8 is passed on whole, for the encoding rule to drop."""
    try:
        record = json.loads(line)
    except UnicodeDecodeError:
        return line
    except ValueError as error:
        raise Failure(f"{str(path)!r}, line {number}: not JSON ({error}); repair or remove the line") from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise Failure(f"{str(path)!r}, line {number}: no string in the field `text`")
    # A lone surrogate (an escape such as "\ud800") has no UTF-8 form: its bytes fail the encoding rule.
    return record["text"].encode("utf-8", "surrogatepass")
