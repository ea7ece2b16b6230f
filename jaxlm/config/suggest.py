"""What to say when a command line names something that is not there: the nearest that is."""

from __future__ import annotations

import difflib
from typing import Any

from jaxlm.config.paths import Choice, choices, leaves, option_name, reachable

NEAREST = 3


def nearest(word: str, known: list[str], count: int = NEAREST) -> list[str]:
    """The names most like a word; a name's tail counts too, so `batch` finds `train.batch`."""
    parts = word.count(".") + 1

    def likeness(name: str) -> float:
        tail = ".".join(name.split(".")[-parts:])
        matcher = difflib.SequenceMatcher(None, word, name, autojunk=False)
        whole = matcher.ratio()
        return whole if tail == name else max(whole, 0.99 * difflib.SequenceMatcher(None, word, tail).ratio())

    return sorted(known, key=likeness, reverse=True)[:count]


def unknown(tree: Any, path: str, options: tuple[str, ...]) -> str:
    """Why a path is no field of the tree: a group, a field of another alternative, or misspelt."""
    known, groups = leaves(tree), reachable(tree)
    below = [name for name in known if name.startswith(f"{path}.")]
    if path in choices(tree):
        names = ", ".join(option_name(cls) for cls in choices(tree)[path].classes)
        return f"--{path} takes one of {names}"
    if below:
        return f"--{path} is a group of fields: set one of them\n" + _list(below[:NEAREST], tree)
    if path in groups:
        return f"--{path}: {why_absent(tree, path)}; add {' '.join(groups[path])}"
    elsewhere = [name for name in groups if name not in known]
    names = nearest(path, [*known, *choices(tree), *options, *elsewhere])
    return f"unknown field --{path}; nearest:\n" + _list(names, tree, groups)


def _list(names: list[str], tree: Any, groups: dict[str, tuple[str, ...]] | None = None) -> str:
    now = {path: show(leaf.value) for path, leaf in leaves(tree).items()}
    now |= {path: option_name(type(choice.value)) for path, choice in choices(tree).items()}
    width = max(map(len, names))
    lines = []
    for name in names:
        needs = " ".join((groups or {}).get(name, ()))
        note = f"now {now[name]}" if name in now else f"with {needs}" if needs else ""
        lines.append(f"  --{name:{width}}  {note}".rstrip())
    return "\n".join(lines)


def why_absent(tree: Any, path: str) -> str:
    """Which member of which union leaves a path out."""
    inside = [one for one in choices(tree).values() if path.startswith(f"{one.path}.")]
    if not inside:
        return "no such field"
    union, rest = inside[-1], path.removeprefix(f"{inside[-1].path}.")
    return f"{union.path} is {option_name(type(union.value))}, which has no {rest}"


def unknown_choice(choice: Choice, name: str, members: dict[str, type]) -> str:
    """The members of a union, nearest first."""
    names = nearest(name, list(members), len(members))
    lines = [
        f"  {choice.path}:{one}" + ("  now" if type(choice.value) is members[one] else "") for one in names
    ]
    return f"{choice.path} has no choice {name!r}; nearest first:\n" + "\n".join(lines)


def stray(word: str, switchable: dict[str, set[str]]) -> str:
    """Why a word that follows no field is not a switch either."""
    name, colon, choice = word.partition(":")
    if not colon:
        return f"unexpected word {word!r}: fields are set by --path value, alternatives chosen by path:name"
    having = [path for path, names in switchable.items() if choice in names]
    lines = "\n".join(
        f"  {one}:{choice if having else '...'}" for one in nearest(name, having or list(switchable))
    )
    return f"{name} is no field with alternatives; nearest:\n{lines}"


def show(value: Any) -> str:
    """A plain value as it is written on the command line."""
    if isinstance(value, tuple):
        return " ".join(repr(one) for one in value) or "(empty)"
    return "none" if value is None else repr(value) if value == "" else str(value)
