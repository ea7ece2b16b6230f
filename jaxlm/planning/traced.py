"""FLOPs of a traced program: what it will compute, recomputation included, before any compiler has touched it."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr

CUDNN = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}
"""Products of cuDNN's attention, forward and backward."""


def product_flops(traced: ClosedJaxpr) -> float:
    """FLOPs of all matrix products on all devices: 2 an element and contracted index.

    Loops are multiplied out (`while` loops count once); of a conditional the dearest branch counts; inside
    `shard_map` shapes are one device's share and count once for each device along its axes; a Pallas call counts
    its own cost estimate, or else its body once for each point of its grid, masked blocks included.
    """
    return _flops(traced.jaxpr)


def _flops(jaxpr: Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            total += _dot(equation)
        elif name == "ragged_dot_general":
            total += _ragged(equation)
        elif name in CUDNN:
            total += _cudnn(equation)
        elif name == "scan":
            total += params["length"] * _flops(params["jaxpr"].jaxpr)
        elif name == "cond":
            total += max(_flops(branch.jaxpr) for branch in params["branches"])
        elif name == "pallas_call":
            total += _kernel(params)
        elif name == "shard_map":
            total += prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"]) * _flops(
                params["jaxpr"]
            )
        else:
            total += sum(_flops(inner) for inner in _inner(params))
    return total


def _dot(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * prod(equation.outvars[0].aval.shape) * prod(left[axis] for axis in contracted)


def _ragged(equation: Any) -> float:
    """Every slot is multiplied once, with the matrix of its group."""
    left, right = (one.aval.shape for one in equation.invars[:2])
    dimensions = equation.params["ragged_dot_dimension_numbers"]
    (_, contracted), (_, batch) = dimensions.dot_dimension_numbers
    once = {*contracted, *batch, *dimensions.rhs_group_dimensions}
    return 2.0 * prod(left) * prod(size for axis, size in enumerate(right) if axis not in once)


def _cudnn(equation: Any) -> float:
    """Products of fused attention, masked scores included; operands are [row, pos, heads, head]."""
    q, k = (one.aval.shape for one in equation.invars[:2])
    return CUDNN[equation.primitive.name] * 2.0 * prod(q) * k[1]


def _kernel(params: dict[str, Any]) -> float:
    estimate = params.get("cost_estimate")
    if estimate is not None:
        return float(estimate.flops)
    grid = [n for n in params["grid_mapping"].grid if isinstance(n, int)]
    return prod(grid) * _flops(params["jaxpr"])


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """Programs that a primitive carries, whatever it calls them."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, Jaxpr):
                yield one
