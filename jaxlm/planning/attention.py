"""How long attention kernels take on a TPU: the compiler gives no cycles for Pallas calls.

A pessimistic estimate: matrix-unit time at 90 % of peak and vector-unit time (14 float32 operations a score
forward, 9 in each kernel of the backward pass), one after the other, for whole blocks with their masked parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from jaxlm.config.chips import Chip
from jaxlm.planning.hlo import Instruction, Module, arrays

TIMED = ("splash_", "gmm", "tgmm")
"""How the names of kernels begin that can be timed, here and in `planning.experts`."""
MXU_SHARE = 0.9
PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4, "fused": 5}
"""Matrix products of a block; the separate backward kernels compute the scores twice."""
VECTOR = {"fwd": 14, "dq": 9, "dkv": 9, "fused": 18}
"""float32 vector operations for each score."""
BLOCK = 1024
"""Of a call that names none."""
LANES = 128
"""Features that the matrix unit takes at once: a smaller head takes as long."""


@dataclass(frozen=True)
class Kernel:
    """A splash attention call of the compiled step, with one device's shapes."""

    phase: str
    """"fwd", "dq", "dkv", or "fused" (both gradients at once)."""
    rows: int
    heads: int
    queries: int
    keys: int
    head: int
    block_q: int
    block_kv: int
    times: int
    """Executions in a step."""


def kernels(module: Module) -> list[Kernel]:
    """The splash attention calls of a step."""
    return [
        _kernel(one, times)
        for _, times, body in module.scheduled()
        for one in body
        if one.op == "custom-call" and '"tpu_custom_call"' in one.attributes and "splash_" in one.name
    ]


def other_kernels(module: Module) -> dict[str, int]:
    """Pallas calls, and what runs on SparseCores, that nothing can time: name -> executions in a step."""
    found: dict[str, int] = {}
    for _, times, body in module.scheduled():
        for one in body:
            pallas = one.op == "custom-call" and '"tpu_custom_call"' in one.attributes
            if one.unknown or (pallas and not one.name.startswith(TIMED)):
                name = re.sub(r"[.\d]+$", "", one.name)
                found[name] = found.get(name, 0) + times
    return found


def _kernel(one: Instruction, times: int) -> Kernel:
    phase = next(phase for phase in ("fwd", "dkv", "dq") if f"_{phase}" in one.name)
    constraints = re.search(r"operand_layout_constraints=\{(.*?)\}, frontend", one.attributes, re.DOTALL)
    operands = [shape for kind, shape in arrays(constraints[1] if constraints else "") if kind in ("bf16", "f32")]
    q, k = operands[0], operands[1]
    rows = q[0] if len(q) == 4 else 1
    if phase == "dkv" and any(len(shape) == len(q) + 1 for _, shape in arrays(one.type)):
        phase = "fused"  # it also returns a part of dq for each block of keys
    suffix = {"fwd": "", "dq": "_dq"}.get(phase, "_dkv")
    blocks = {name: int(n) for name, n in re.findall(r'\\"(block_\w+)\\": (\d+)', one.attributes)}
    return Kernel(
        phase=phase,
        rows=rows,
        heads=q[-3],
        queries=q[-2],
        keys=k[-2],
        head=q[-1],
        block_q=min(blocks.get(f"block_q{suffix}", BLOCK), q[-2]),
        block_kv=min(blocks.get(f"block_kv{suffix}", BLOCK), k[-2]),
        times=times,
    )


def blocks_run(kernel: Kernel, window: int | None = None, *, causal: bool = True) -> int:
    """Blocks of a head that are not masked away; with as many queries as keys they are of the same tokens."""
    if kernel.queries != kernel.keys:
        return -(-kernel.queries // kernel.block_q) * -(-kernel.keys // kernel.block_kv)
    total, width = 0, kernel.keys if window is None else window - 1
    for start in range(0, kernel.queries, kernel.block_q):
        end = min(start + kernel.block_q, kernel.queries)
        last = end if causal else min(end + width, kernel.keys)
        total += -(-last // kernel.block_kv) - max(0, start - width) // kernel.block_kv
    return total


def pessimistic(some: Iterable[Kernel], chip: Chip, window: int | None = None, *, causal: bool = True) -> float:
    """Seconds a step spends in attention, matrix and vector units one after the other."""
    total = 0.0
    for kernel in some:
        blocks = blocks_run(kernel, window, causal=causal)
        scores = blocks * kernel.block_q * kernel.block_kv * kernel.heads * kernel.rows
        head = -(-kernel.head // LANES) * LANES
        matrix = scores * PRODUCTS[kernel.phase] * 2 * head / (MXU_SHARE * chip.peak)
        vector = scores * VECTOR[kernel.phase] / (chip.vector_lanes * chip.clock)
        total += kernel.times * (matrix + vector)
    return total
