"""The dotted paths of a tree of dataclasses: the fields it has and those it would have after a switch."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple


class Leaf(NamedTuple):
    """A field that holds a plain value."""

    path: str
    hint: Any
    value: Any


class Choice(NamedTuple):
    """A field that holds one of several dataclasses."""

    path: str
    classes: tuple[type, ...]
    value: Any


def option_name(cls: type) -> str:
    """Name of a union's member on the command line: RMSNorm is rms_norm, AdamW adamw, Rwkv4 rwkv4."""
    return re.sub(r"(?<=[A-Za-z0-9])(?=[A-Z][a-z])", "_", cls.__name__).lower()


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Type of every field of a dataclass, in order."""
    resolved = typing.get_type_hints(cls)
    return {field.name: resolved[field.name] for field in dataclasses.fields(cls)}


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Members of a union; of any other type, the type alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def classes(hint: Any) -> tuple[type, ...]:
    """The dataclasses a field may hold."""
    return tuple(one for one in alternatives(hint) if dataclasses.is_dataclass(one))


def element(hint: Any) -> Any:
    """The element type of `tuple[X, ...]`; None for any other type."""
    arguments = typing.get_args(hint)
    return arguments[0] if typing.get_origin(hint) is tuple and arguments[1:] == (Ellipsis,) else None


def children(node: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, type, value) of each field of a dataclass instance."""
    for name, hint in hints(type(node)).items():
        yield name, hint, getattr(node, name)


def walk(node: Any, prefix: str = "") -> Iterator[Leaf | Choice]:
    """All leaves and choices below an instance, parents first; elements of a tuple are numbered."""
    for name, hint, value in children(node):
        path = f"{prefix}{name}"
        inner = element(hint)
        if inner is not None and classes(inner):
            for i, each in enumerate(value):
                yield from _walk_field(f"{path}.{i}", inner, each)
        else:
            yield from _walk_field(path, hint, value)


def _walk_field(path: str, hint: Any, value: Any) -> Iterator[Leaf | Choice]:
    choices = classes(hint)
    if not choices:
        yield Leaf(path, hint, value)
        return
    if len(alternatives(hint)) > 1:
        yield Choice(path, choices, value)
    if value is not None:
        yield from walk(value, f"{path}.")


def leaves(tree: Any) -> dict[str, Leaf]:
    """Every plain field of an instance by its path."""
    return {one.path: one for one in walk(tree) if isinstance(one, Leaf)}


def choices(tree: Any) -> dict[str, Choice]:
    """Every field of an instance that can be switched, by its path."""
    return {one.path: one for one in walk(tree) if isinstance(one, Choice)}


def has_default(cls: type) -> bool:
    """Whether a dataclass can be made without arguments."""
    missing = dataclasses.MISSING
    return all(f.default is not missing or f.default_factory is not missing for f in dataclasses.fields(cls))


def reachable(tree: Any, prefix: str = "", switches: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Every path of a plain field, with the fewest switches after which the tree has it.

    Fields of the instance itself come first and need none.
    """
    found: dict[str, tuple[str, ...]] = {}
    pending = [(tree, prefix, switches)]
    while pending:
        # fewest switches first, and of those the innermost: `model.position:learned` before `model:encoder`
        pending.sort(key=lambda one: (len(one[2]), -one[1].count(".")))
        node, prefix, switches = pending.pop(0)
        for one in walk(node, prefix):
            if isinstance(one, Leaf):
                found.setdefault(one.path, switches)
                continue
            for cls in one.classes:
                if cls is not type(one.value) and has_default(cls):
                    pending.append((cls(), f"{one.path}.", (*switches, f"{one.path}:{option_name(cls)}")))
    return found


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """First line of the string below each field of a dataclass."""
    body = ast.parse(inspect.getsource(importlib.import_module(cls.__module__))).body
    node = next((n for n in body if isinstance(n, ast.ClassDef) and n.name == cls.__name__), None)
    docs = {}
    for field, text in zip(node.body, node.body[1:]) if node else ():
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            docs[field.target.id] = inspect.cleandoc(ast.literal_eval(text.value)).split("\n")[0]
    return docs


def type_name(hint: Any) -> str:
    """A type as a user would say it."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "none"}
    if element(hint) is not None:
        return f"any number of values, each {type_name(element(hint))}"
    return " or ".join(names.get(one, str(one)) for one in alternatives(hint))
