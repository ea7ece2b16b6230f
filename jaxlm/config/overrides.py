"""Changes to an experiment from the command line: `--model.position.theta 1e4`, `model.position:learned`.

Where a field holds several dataclasses, they are numbered, and the next number is one more, by its defaults:
`--quantization.rules.1.targets mlp` is a second rule where there was one.

A setter of our own and not tyro's: tyro 1.0.17 depends on the order of arguments (a field before its switch,
or an outer switch after an inner one, is an error; a switch after a tuple of strings is swallowed as one of
them), reports an internal error for a union with a member that has no default, and takes 0.2 s longer.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import typing
from typing import Any, NamedTuple

from jaxlm.config.errors import UsageError
from jaxlm.config.paths import (
    alternatives,
    children,
    choices,
    classes,
    element,
    has_default,
    hints,
    leaves,
    option_name,
    type_name,
)
from jaxlm.config.suggest import stray, unknown, unknown_choice, why_absent


class Change(NamedTuple):
    """One request of a command line; `values` are the words that followed."""

    path: str
    values: list[str]


def apply(tree: Any, argv: list[str], options: tuple[str, ...] = ()) -> Any:
    """The tree with the changes of a command line, whatever their order; the last of two equal ones counts.

    `options` are names of the command's own options, offered for a misspelt field. Raises UsageError.
    """
    if not argv:
        return tree
    switches, fields = _read(tree, argv)
    named = sorted((path for path, _ in (*switches, *fields)), key=_by_number)
    for path, choice in sorted(switches, key=lambda one: one[0].count(".")):
        tree = _switch(functools.reduce(_grown, named, tree), path, choice)
    tree = functools.reduce(_grown, named, tree)
    known = leaves(tree)
    for path, values in fields:
        if path not in known:
            raise UsageError(unknown(tree, path, options))
        tree = replace_at(tree, path, _value(path, known[path].hint, values))
    return tree


def replace_at(tree: Any, path: str, value: Any) -> Any:
    """The tree with another value at a dotted path."""
    name, _, rest = path.partition(".")
    if isinstance(tree, tuple):
        i = int(name)
        return (*tree[:i], replace_at(tree[i], rest, value) if rest else value, *tree[i + 1 :])
    return dataclasses.replace(tree, **{name: replace_at(getattr(tree, name), rest, value) if rest else value})


def _by_number(path: str) -> str:
    """What sorts members behind those that they follow: the tenth behind the second."""
    return re.sub(r"\d+", lambda number: number[0].zfill(9), path)


def _grown(tree: Any, path: str) -> Any:
    """The tree with one more member, by its defaults, where the path names the next of several dataclasses."""
    name, _, rest = path.partition(".")
    hint = hints(type(tree)).get(name) if dataclasses.is_dataclass(tree) else None
    if hint is None or not rest:
        return tree
    value, inner = getattr(tree, name), element(hint)
    if inner is None or not classes(inner):
        return dataclasses.replace(tree, **{name: _grown(value, rest)})
    number, _, rest = rest.partition(".")
    if not number.isdigit() or int(number) > len(value):
        return tree
    place, first = int(number), classes(inner)[0]
    if place == len(value):
        if not has_default(first):
            return tree
        value = (*value, first())
    return dataclasses.replace(tree, **{name: (*value[:place], _grown(value[place], rest), *value[place + 1 :])})


def _read(tree: Any, argv: list[str]) -> tuple[list[tuple[str, str]], list[Change]]:
    """Sorts words into switches and fields; a field takes the words up to the next switch or field."""
    switchable = _switchable(tree)
    switches: list[tuple[str, str]] = []
    fields: list[Change] = []
    open_field = False
    for word in argv:
        name, colon, choice = word.partition(":")
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            fields.append(Change(name.replace("-", "_"), [value] if equals else []))
            open_field = not equals
        elif colon and _first(name.replace("-", "_")) in switchable:
            switches.append((name.replace("-", "_"), choice))
            open_field = False
        elif open_field:
            fields[-1].values.append(word)
        else:
            raise UsageError(stray(word, switchable))
    as_switch = [one for one in fields if _first(one.path) in switchable and len(one.values) == 1]
    return switches + [(c.path, c.values[0]) for c in as_switch], [c for c in fields if c not in as_switch]


def _first(path: str) -> str:
    """The same path in the first of several."""
    return re.sub(r"\.\d+(?=\.|$)", ".0", path)


def _switchable(tree: Any) -> dict[str, set[str]]:
    """Names of the members of all unions by path, those inside other alternatives included; `_first` of several."""
    found: dict[str, set[str]] = {}
    for one in choices(_filled(tree)).values():
        found.setdefault(_first(one.path), set()).update(option_name(cls) for cls in one.classes)
        for cls in one.classes:
            if cls is not type(one.value) and has_default(cls):
                for path, names in _switchable(cls()).items():
                    found.setdefault(_first(f"{one.path}.{path}"), set()).update(names)
    return found


def _filled(node: Any) -> Any:
    """The same tree, where there is none of several dataclasses with one."""
    new = {}
    for name, hint, value in children(node):
        inner = element(hint)
        if inner is not None and classes(inner):
            first = classes(inner)[0]
            new[name] = tuple(map(_filled, value)) or ((first(),) if has_default(first) else ())
        elif dataclasses.is_dataclass(value):
            new[name] = _filled(value)
    return dataclasses.replace(node, **new)


def _switch(tree: Any, path: str, name: str) -> Any:
    """The tree with another member of a union; a member that is there already keeps its values."""
    choice = choices(tree).get(path)
    if choice is None:
        raise UsageError(f"{path}:{name}: {why_absent(tree, path)}")
    members = {option_name(cls): cls for cls in choice.classes}
    cls = members.get(name.replace("-", "_").lower())
    if cls is None:
        raise UsageError(unknown_choice(choice, name, members))
    if type(choice.value) is cls:
        return tree
    if not has_default(cls):
        raise UsageError(f"{path}:{name} has fields without defaults: write it in the experiment's file")
    return replace_at(tree, path, cls())


def _value(path: str, hint: Any, words: list[str]) -> Any:
    """Words as a value of the field's type."""
    inner = element(hint)
    if inner is not None:
        return tuple(_scalar(path, inner, word) for word in words)
    if not words:
        raise UsageError(f"--{path} has no value: expected {type_name(hint)}")
    if len(words) > 1:
        raise UsageError(f"--{path} takes one value, got {len(words)}: {' '.join(words)}")
    return _scalar(path, hint, words[0])


def _scalar(path: str, hint: Any, word: str) -> Any:
    for one in alternatives(hint):
        try:
            return _convert(one, word)
        except ValueError:
            continue
    raise UsageError(f"--{path}: got {word!r}, expected {type_name(hint)}")


def _convert(hint: Any, word: str) -> Any:
    if typing.get_origin(hint) is typing.Literal:
        return {str(one): one for one in typing.get_args(hint)}[word] if word in _names(hint) else _no(word)
    if hint is str:
        return word
    if hint is bool:
        return {"true": True, "false": False}.get(word.lower()) if word.lower() in ("true", "false") else _no(word)
    if hint is type(None):
        return None if word.lower() == "none" else _no(word)
    if hint not in (int, float):
        return _no(word)
    number = float(word)
    if not math.isfinite(number):
        return _no(word)
    if hint is float:
        return number
    try:
        return int(word)
    except ValueError:  # 1e4 is an integer, 1.5 is not
        return int(number) if number.is_integer() else _no(word)


def _names(hint: Any) -> list[str]:
    return [str(one) for one in typing.get_args(hint)]


def _no(word: str) -> None:
    raise ValueError(word)
