"""How long the kernels of a mixture of experts take on a TPU, pessimistically, as in `planning.attention`.

Whole tiles are multiplied at 90 % of peak, and each expert but the first begins in a tile of another; then the
vector unit masks, rounds and adds; no kernel is faster than its tiles can be read. Tiles are those of
`layers.moe.megablox`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from jaxlm.config.chips import Chip
from jaxlm.layers.moe import megablox
from jaxlm.planning.attention import MXU_SHARE
from jaxlm.planning.hlo import Instruction, Module, arrays

SUM, STORE, MASK = 1, 3, 4
"""Vector operations: to add a product to the sum, to mask, convert and write a sum, to mask an operand."""
BYTES = 2
"""Of an operand's element: bfloat16."""


@dataclass(frozen=True)
class Kernel:
    """Products of slots with matrices, [slots, inputs] and [experts, inputs, outputs] in some order."""

    experts: int
    slots: int
    inputs: int
    outputs: int
    over_slots: bool
    """Whether slots are summed over: the matrices' gradient."""
    times: int
    """Executions in a step."""


def kernels(module: Module) -> Iterator[Kernel]:
    """The experts' kernels of a step."""
    for _, times, body in module.scheduled():
        for one in body:
            if one.op == "custom-call" and re.fullmatch(r"t?gmm(\.\d+)*", one.name):
                yield _kernel(one, times)


def _kernel(one: Instruction, times: int) -> Kernel:
    constraints = re.search(r"operand_layout_constraints=\{(.*?)\}, frontend", one.attributes, re.DOTALL)
    x, other = [shape for kind, shape in arrays(constraints[1] if constraints else "") if kind in ("bf16", "f32")]
    result = arrays(one.type)[0][1]
    if len(result) == 3:
        return Kernel(result[0], x[0], x[1], other[1], True, times)
    return Kernel(other[0], x[0], x[1], result[1], False, times)


def pessimistic(some: Iterator[Kernel], chip: Chip) -> float:
    """Seconds that a step spends in the experts' products."""
    return sum(kernel.times * _seconds(kernel, chip) for kernel in some)


def _seconds(kernel: Kernel, chip: Chip) -> float:
    slots = next(size for size in megablox.SLOTS if kernel.slots % size == 0)
    wide = megablox.GRADIENT_FEATURES if kernel.over_slots else megablox.FEATURES
    tile = slots, min(wide, kernel.inputs), min(wide, kernel.outputs)
    tiles = (
        (kernel.slots // slots + kernel.experts - 1) * -(-kernel.inputs // tile[1]) * -(-kernel.outputs // tile[2])
    )
    matrix = 2 * prod(tile) / (MXU_SHARE * chip.peak)
    read = slots * (tile[1] + tile[2]) if kernel.over_slots else tile[1] * (slots + tile[2])
    summed = tile[1] * tile[2] if kernel.over_slots else slots * tile[2]
    steps = (kernel.slots // slots if kernel.over_slots else kernel.inputs / tile[1]) or 1
    vector = summed * (SUM + STORE / steps) + (MASK * read if kernel.over_slots else 0)
    return tiles * max(matrix + vector / (chip.vector_lanes * chip.clock), BYTES * read / chip.bandwidth)
