"""How long a GPU step takes by a stated model, as GPU compilers print no cycles.

Each kernel takes the longer of its matrix products at `PRODUCTS` of the peak and its reads and writes at
`MEMORY` of the bandwidth; kernels follow each other. Attention by cuDNN counts its products at `ATTENTION` of
the peak, without masked blocks. Calibrated on one H100 SXM, with traces of Llama 3.2 1B and of four layers of
LLaMA 2 7B (`experiments/benchmarks/planned.py`); several GPUs were not measured.
"""

from __future__ import annotations

import json
import re
from math import prod

from jaxlm.config.chips import Chip
from jaxlm.planning.hlo import Instruction, Module, arrays, size

PRODUCTS = 0.65
"""Share of peak that bfloat16 products reach, the pauses between kernels included; single ones reach 0.6 to 0.8."""
ATTENTION = {"forward": {64: 0.44, 128: 0.59}, "backward": {64: 0.31, 128: 0.39}}
"""Share of peak by the features of a head, rows of 4,096; others as the next wider of these."""
MEMORY = 0.85
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "iota"}
FREE |= {"after-all", "partition-id", "replica-id", "optimization-barrier"}
FLOAT32_SLOWER = 2.0
"""float32 products as TF32 run at half the bfloat16 rate."""


def seconds(module: Module, chip: Chip) -> float:
    """Time of one step's kernels, collectives not counted."""
    total = 0.0
    for _, times, body in module.scheduled():
        within = {one.name: one for one in body}
        total += times * sum(_kernel(module, within, one, chip) for one in body)
    return total


def _kernel(module: Module, within: dict[str, Instruction], one: Instruction, chip: Chip) -> float:
    if one.op in FREE or one.op.endswith(("-start", "-done", "-update")):
        return 0.0
    if "fmha" in one.attributes and one.op == "custom-call":
        return _attention(one) / chip.peak
    return max(
        _products(module, within, one) / (PRODUCTS * chip.peak),
        _traffic(module, within, one) / (MEMORY * chip.bandwidth),
    )


def _attention(one: Instruction) -> float:
    """FLOPs of a causal cuDNN attention call, counted as if at peak.

    Two products forward, five backward, half of them masked.
    """
    constraints = re.search(r"operand_layout_constraints=\{(.*?)\}, ", one.attributes)
    q = next((shape for _, shape in arrays(constraints[1]) if len(shape) == 4), None) if constraints else None
    if q is None:
        return 0.0
    products, shares = (5, "backward") if "Backward" in one.attributes else (2, "forward")
    length = max(q[1], q[2])  # (row, head, pos, feature) or (row, pos, head, feature)
    share = ATTENTION[shares][64 if q[3] <= 64 else 128]
    return products * 2 * prod(q) * length / 2 / share


def _products(module: Module, within: dict[str, Instruction], one: Instruction) -> float:
    """FLOPs of the matrix products of a kernel, counted as if in bfloat16."""
    if one.op == "fusion":
        body = {each.name: each for name in one.called("calls") for each in module.computations[name]}
        return sum(_dot(body, each, each.attributes) for each in body.values() if each.op == "dot")
    if one.op == "dot":
        return _dot(within, one, one.attributes)
    if one.op == "custom-call" and "__cublas" in one.attributes:
        config = re.search(r"backend_config=(\{.*\})", one.attributes)
        numbers = json.loads(config[1])["gemm_backend_config"]["dot_dimension_numbers"] if config else {}
        contracted = ",".join(numbers.get("lhs_contracting_dimensions", ()))
        return _dot(within, one, f"lhs_contracting_dims={{{contracted}}}")
    return 0.0


def _dot(within: dict[str, Instruction], one: Instruction, attributes: str) -> float:
    left = arrays(within[one.operands[0]].type)[0] if one.operands and one.operands[0] in within else None
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", attributes)
    if left is None or found is None:
        return 0.0
    contracted = prod(left[1][int(axis)] for axis in found[1].split(",") if axis)
    slower = FLOAT32_SLOWER if left[0] == "f32" else 1.0
    return 2.0 * prod(arrays(one.type)[0][1]) * contracted * slower


def _traffic(module: Module, within: dict[str, Instruction], one: Instruction) -> float:
    """Bytes a kernel reads and writes; of what it slices or updates in place, the slice only."""
    inside = {each.name: each for name in one.called("calls") for each in module.computations.get(name, ())}
    written = sum(size(each.type) for each in _stores(inside, one))
    read = 0
    for number, name in enumerate(one.operands):
        if name not in within:
            continue
        parameter = next((p for p in inside.values() if p.op == "parameter" and p.literal == str(number)), None)
        uses = [each for each in inside.values() if parameter and parameter.name in each.operands]
        if uses and all(use.op == "dynamic-slice" and use.operands[0] == parameter.name for use in uses):
            read += sum(size(use.type) for use in uses)
        elif not (uses and all(_updates(use, parameter) for use in uses)):
            read += size(within[name].type)
    return read + written


def _updates(use: Instruction, parameter: Instruction) -> bool:
    return use.op == "dynamic-update-slice" and use.operands[0] == parameter.name


def _stores(inside: dict[str, Instruction], one: Instruction) -> list[Instruction]:
    """What is written: the results, or the updates where a result is an operand updated in place."""
    root = next((each for each in inside.values() if each.root), None)
    if root is None:
        return [one]
    results = [inside[name] for name in root.operands if name in inside] if root.op == "tuple" else [root]
    found = []
    for result in results:
        while result.op in ("bitcast", "copy") and result.operands and result.operands[0] in inside:
            result = inside[result.operands[0]]
        update = inside.get(result.operands[1]) if result.op == "dynamic-update-slice" else None
        found.append(update or result)
    return found
