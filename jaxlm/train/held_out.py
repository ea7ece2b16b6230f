"""How well a model predicts text it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

from jaxlm.cluster import together
from jaxlm.layers.axes import batch_specs, specs
from jaxlm.layers.contracts import Batch, Call
from jaxlm.layers.names import combine
from jaxlm.objectives.objective import Objective

Evaluate = Callable[[PyTree, dict[str, Any], Iterable[Batch]], dict[str, float]]


def make_evaluate(objective: Objective, call: Call) -> Evaluate:
    """A function (trained half, frozen, batches) -> each term's mean over all batches, without dropout.

    Sums are added in float64 on the host, so that the order and size of batches do not show.
    """
    layout = call.layout

    def of_a_device(trained: PyTree, frozen: dict[str, Any], batch: Batch) -> dict:
        totals, _ = objective.totals(combine(trained, frozen["model"]), batch, None, call, frozen)
        return layout.total(totals)

    @jax.jit
    def sums(trained: PyTree, frozen: dict[str, Any], batch: Batch) -> tuple[dict, dict]:
        batch = objective.prepare(batch, jax.random.key(0))
        whole = PartitionSpec()
        given = (specs(trained, layout), specs(frozen, layout), batch_specs(batch, layout))
        return layout.spmd(of_a_device, given, whole)(trained, frozen, batch), objective.weights(batch)

    program: list[jax.stages.Compiled] = []

    def evaluate(trained: PyTree, frozen: dict[str, Any], batches: Iterable[Batch]) -> dict[str, float]:
        total: dict[str, float] = {}
        weight: dict[str, float] = {}
        for batch in batches:
            if not program:
                program.append(together.compiled(sums.lower(trained, frozen, batch)))
            totals, weights = jax.device_get(program[0](trained, frozen, batch))
            for term in totals:
                total[term] = total.get(term, 0.0) + float(totals[term])
                weight[term] = weight.get(term, 0.0) + float(weights[term])
        result = {term: total[term] / weight[term] for term in total}
        result["loss"] = sum(objective.coefficients[term] * result[term] for term in total)
        return result | {f"{term}_total": total[term] for term in total}

    return evaluate


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Bits to encode a byte of text: total nats / ln 2 / bytes of UTF-8."""
    return nats / math.log(2) / text_bytes
