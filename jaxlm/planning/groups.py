"""Which devices a collective joins, in each of the forms that compilers print, and which mesh axes those are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations, product
from math import prod


def group(attributes: str, devices: int) -> tuple[int, ...]:
    """Device numbers of a collective's first group; all devices where it names none.

    Forms: `{{0,1},{2,3}}`, `[2,4]<=[8]` with an optional `T(1,0)`, `mesh['a'=2,'b'=4] {'b'}` with parts of an
    axis as `'b':(1)2` and an order of its devices as `device_ids=([4,2]T(1,0))`, and the `source_target_pairs`
    of a permutation (the ring that starts at its first source).
    """
    if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes):
        return _ring([tuple(map(int, one)) for one in re.findall(r"\{(\d+),(\d+)\}", pairs[1])])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\]([^{]*)\{([^}]*)\}", attributes):
        places = _of_mesh(named[1], named[3])
        order = re.search(r"device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\)", named[2])
        numbers = _iota(_numbers(order[1]), _numbers(order[2])) if order else None
        return tuple(sorted(numbers[place] for place in places)) if numbers else places
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        return tuple(_iota(_numbers(iota[2]), _numbers(iota[3]))[: prod(_numbers(iota[1])[1:])])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return tuple(map(int, listed[1].split(",")))
    return tuple(range(devices))


def _ring(pairs: list[tuple[int, int]]) -> tuple[int, ...]:
    following = dict(pairs)
    start = pairs[0][0] if pairs else 0
    found, here = [start], following.get(start)
    while here is not None and here not in found:
        found.append(here)
        here = following.get(here)
    return tuple(sorted(found))


def _of_mesh(axes: str, named: str) -> tuple[int, ...]:
    """Row-major numbers of the devices that differ in the named axes only."""
    sizes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", axes)}
    stride, inner = {}, 1
    for name in reversed(sizes):
        stride[name] = inner
        inner *= sizes[name]
    steps = []
    for name, before, part in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", named):
        count = int(part) if part else sizes[name]
        step = stride[name] * (sizes[name] // (int(before) * count) if part else 1)
        steps.append([i * step for i in range(count)])
    return tuple(sorted(sum(one) for one in product(*steps)))


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()


def _iota(shape: tuple[int, ...], order: tuple[int, ...]) -> list[int]:
    """`iota(prod(shape)).reshape(shape).transpose(order)`, flattened."""
    strides = [prod(shape[i + 1 :]) for i in range(len(shape))]
    axes = order or tuple(range(len(shape)))
    return [sum(one) for one in product(*([i * strides[axis] for i in range(shape[axis])] for axis in axes))]


def axes_of(members: tuple[int, ...], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes (name -> size, slowest first) whose first group these devices are; none where no set is."""
    real = [axis for axis, count in mesh.items() if count > 1]
    wanted = tuple(sorted(members))
    named = ",".join(f"'{axis}'={count}" for axis, count in mesh.items())
    for count in range(len(real) + 1):
        for some in combinations(real, count):
            if _of_mesh(named, ",".join(f"'{axis}'" for axis in some)) == wanted:
                return some
    return ()
