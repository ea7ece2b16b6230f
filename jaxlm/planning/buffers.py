"""The largest arrays a step makes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jaxlm.planning.hlo import Module, flat, size

NOT_MADE = {"parameter", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "constant"}
"""Operations that make no array of their own; of an asynchronous pair the end is counted."""


@dataclass(frozen=True)
class Buffer:
    """Arrays of one type that come from one place of the program."""

    type: str
    """Element type and shape."""
    bytes: int
    count: int
    """Instructions that make one; a loop's body makes it again in the same place."""
    scope: str


def largest(module: Module, count: int = 8) -> list[Buffer]:
    """The largest arrays, those alike counted together; on which chip memory they are kept is not told."""
    found: dict[tuple[str, str], int] = {}
    for _, _, body in module.scheduled():
        for one in body:
            if one.op in NOT_MADE or one.op.endswith("-start"):
                continue
            scope = _short(one.scope)
            for member in {_plain(each) for each in flat(one.type)}:
                found[member, scope] = found.get((member, scope), 0) + 1
    rows = [Buffer(kind, size(kind), number, scope) for (kind, scope), number in found.items()]
    return sorted(rows, key=lambda row: -row.bytes)[:count]


def _plain(type_text: str) -> str:
    return re.sub(r"\{[^}]*\}", "", type_text)


def _short(scope: str) -> str:
    """The named scopes of an operation, without the machinery of tracing, and whether it is the backward pass."""
    words = [
        word for word in scope.split("/") if word and not re.search(r"^(jit|while|body|closed_call|cond)\b", word)
    ]
    backward = any("transpose" in word for word in words)
    names = [re.sub(r"^(?:(?:transpose|jvp|vmap)\()+([^()]*)\)*$", r"\1", word) for word in words]
    shown = "/".join(name for name in names if name and not name.startswith(("checkpoint", "rematted", "branch")))
    return f"{shown} (backward)" if backward else shown
