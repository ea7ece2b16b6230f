"""How a family's published tensors correspond to ours: data, read in both directions.

Dimensions have one-letter names. Ours "e h d" is theirs "(h d) e": what stands in brackets is one dimension there;
a number is a dimension of that length.
Where one of their tensors holds several of ours, "+" is the axis along which they lie one after the other; a part
whose own axes do not name it is one long there. `{layer}` in a name is the layer's number; `{expert}` in theirs the
expert's, where each has a tensor of its own: ours holds all experts, and its axes here are those of one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One of our parameters."""

    name: str
    axes: str = "n"


@dataclass(frozen=True)
class Entry:
    """One of their tensors."""

    name: str
    axes: str
    parts: tuple[Part, ...]


Table = tuple[Entry, ...]


def entry(theirs: str, ours: str, their_axes: str = "n", our_axes: str = "n") -> Entry:
    """A tensor that holds one of our parameters."""
    return Entry(theirs, their_axes, (Part(ours, our_axes),))


def norms(theirs: str, ours: str) -> Table:
    """Scale and bias of a LayerNorm."""
    return entry(f"{theirs}.weight", f"{ours}.scale"), entry(f"{theirs}.bias", f"{ours}.bias")


def groups(axes: str) -> list[list[str]]:
    """The names of each dimension: "(h d) e" is [[h, d], [e]]."""
    found: list[list[str]] = []
    inside = False
    for word in axes.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(":
            found.append([])
            inside = True
        elif word == ")":
            inside = False
        elif inside:
            found[-1].append(word)
        else:
            found.append([word])
    return found
