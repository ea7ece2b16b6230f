"""One of a family's tensors as our parameters and back; see `families.table` for the notation."""

from __future__ import annotations

from math import prod

import numpy as np
from jaxtyping import Shaped

from jaxlm.families.table import Entry, Part, groups

JOINT = "+"
"""The axis along which parts lie one after the other."""
Shape = tuple[int, ...]


def sizes(entry: Entry, shapes: list[Shape]) -> tuple[dict[str, int], list[int]]:
    """(length of each named axis, length of each part along "+") from the shapes of our parameters.

    Raises ValueError where shapes and axes disagree: the table is wrong.
    """
    axes = [entry.axes, *(part.axes for part in entry.parts)]
    numbers = {name for one in axes for names in groups(one) for name in names if name.isdigit()}
    known = {name: int(name) for name in numbers}
    along: list[int] = []
    # Parts without groups first: a group's unknown axis follows from them.
    for part, shape in sorted(zip(entry.parts, shapes, strict=True), key=lambda one: "(" in one[0].axes):
        for names, length in zip(groups(part.axes), shape, strict=True):
            open_names = [name for name in names if name not in known and name != JOINT]
            rest = length // prod(known[name] for name in names if name in known)
            if len(open_names) == 1 and JOINT not in names:
                known[open_names[0]] = rest
    for part, shape in zip(entry.parts, shapes, strict=True):
        one = 1
        for names, length in zip(groups(part.axes), shape, strict=True):
            named = prod(known[name] for name in names if name != JOINT)
            if JOINT in names:
                one = length // named
            if named * (one if JOINT in names else 1) != length:
                raise ValueError(f"{part.name}: {shape} is not {part.axes} with {known}")
        along.append(one)
    return known, along


def their_shape(entry: Entry, shapes: list[Shape]) -> Shape:
    """The shape of the tensor that holds our parameters of these shapes."""
    known, along = sizes(entry, shapes)
    return tuple(prod((known | {JOINT: sum(along)})[name] for name in names) for names in groups(entry.axes))


def to_theirs(entry: Entry, arrays: list[Shaped[np.ndarray, "..."]]) -> Shaped[np.ndarray, "..."]:
    """Their tensor, of our parameters."""
    shapes = [array.shape for array in arrays]
    known, along = sizes(entry, shapes)
    wanted = [name for names in groups(entry.axes) for name in names]
    pieces = []
    for part, array, joint in zip(entry.parts, arrays, along, strict=True):
        own, lengths = _spread(part, known | {JOINT: joint}, JOINT in wanted)
        pieces.append(array.reshape(lengths).transpose([own.index(name) for name in wanted]))
    whole = np.concatenate(pieces, axis=wanted.index(JOINT)) if JOINT in wanted else pieces[0]
    return np.ascontiguousarray(whole.reshape(their_shape(entry, shapes)))


def from_theirs(
    entry: Entry, number: int, shapes: list[Shape], tensor: Shaped[np.ndarray, "..."]
) -> Shaped[np.ndarray, "..."]:
    """Our parameter `number` of an entry, of their tensor; `shapes` are those of all its parts."""
    known, along = sizes(entry, shapes)
    wanted = [name for names in groups(entry.axes) for name in names]
    spread = tensor.reshape([(known | {JOINT: sum(along)})[name] for name in wanted])
    if JOINT in wanted:
        first = sum(along[:number])
        spread = np.take(spread, range(first, first + along[number]), axis=wanted.index(JOINT))
    own, _ = _spread(entry.parts[number], known | {JOINT: along[number]}, JOINT in wanted)
    return spread.transpose([wanted.index(name) for name in own]).reshape(shapes[number])


def _spread(part: Part, known: dict[str, int], joint: bool) -> tuple[list[str], list[int]]:
    """Names and lengths of our axes one by one, "+" in front where a part does not name it."""
    own = [name for names in groups(part.axes) for name in names]
    if joint and JOINT not in own:
        own = [JOINT, *own]
    return own, [known[name] for name in own]
