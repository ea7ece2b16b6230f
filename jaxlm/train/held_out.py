"""How well a model predicts text it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
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
Measured = tuple[dict[str, Any], dict[str, Any]]
"""Totals and weights of a batch by term."""


def make_evaluate(objective: Objective, call: Call) -> Evaluate:
    """A function (trained half, frozen, batches) -> each term's mean over all batches, without dropout."""
    sums = jax.jit(make_sums(objective, call))
    program: list[jax.stages.Compiled] = []

    def evaluate(trained: PyTree, frozen: dict[str, Any], batches: Iterable[Batch]) -> dict[str, float]:
        measured = []
        for batch in batches:
            if not program:
                program.append(together.compiled(sums.lower(trained, frozen, batch)))
            measured.append(jax.device_get(program[0](trained, frozen, batch)))
        return means(objective, measured)

    return evaluate


def make_sums(objective: Objective, call: Call) -> Callable[[PyTree, dict[str, Any], Batch], Measured]:
    """A function (trained half, frozen, batch) -> totals and weights, to be jitted."""
    layout = call.layout

    def of_a_device(trained: PyTree, frozen: dict[str, Any], batch: Batch) -> dict:
        totals, _ = objective.totals(combine(trained, frozen["model"]), batch, None, call, frozen)
        return layout.total(totals)

    def sums(trained: PyTree, frozen: dict[str, Any], batch: Batch) -> Measured:
        batch = objective.prepare(batch, jax.random.key(0))
        whole = PartitionSpec()
        given = (specs(trained, layout), specs(frozen, layout), batch_specs(batch, layout))
        return layout.spmd(of_a_device, given, whole)(trained, frozen, batch), objective.weights(batch)

    return sums


def means(objective: Objective, measured: Sequence[Measured]) -> dict[str, float]:
    """Each term's mean over all batches, their loss, and totals as `<term>_total`; of the objective's own terms.

    Sums are added in float64 on the host, so that the order and size of batches do not show.
    """
    terms = [term for term in measured[0][0] if term in objective.coefficients]
    totals, weights = ({term: sum(float(one[part][term]) for one in measured) for term in terms} for part in (0, 1))
    result = {term: totals[term] / weights[term] for term in totals}
    result["loss"] = sum(objective.coefficients[term] * result[term] for term in totals)
    return result | {f"{term}_total": total for term, total in totals.items()}


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Bits to encode a byte of text: total nats / ln 2 / bytes of UTF-8."""
    return nats / math.log(2) / text_bytes
