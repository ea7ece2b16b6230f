"""How large a model is, and how well it predicts held-out text: what smaller models are compared by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.data.rows import Rows
from jaxlm.layers.contracts import Call
from jaxlm.layers.names import partition
from jaxlm.objectives.objective import Objective
from jaxlm.train import feed, held_out


@dataclass(frozen=True)
class Quality:
    """What a model comes to on held-out text, and its size."""

    parameters: int
    """Numbers, scales of rounded ones included."""
    bytes: int
    losses: dict[str, float]
    """Mean loss of each term of the objective, nats."""

    @property
    def perplexity(self) -> float:
        """exp of the mean loss."""
        return math.exp(self.losses["loss"])

    def __str__(self) -> str:
        return f"{self.bytes:,} bytes, perplexity {self.perplexity:.4f}"


def measurer(objective: Objective, rows: Rows, call: Call, most: int) -> tuple[Callable[[Any], Quality], int]:
    """(A function of a model: its quality, the tokens that are predicted), on at most `most` batches of rows."""
    batches = [feed.global_batch(rows, call.layout, step) for step in range(min(rows.steps, most))]

    def measure(model: Any) -> Quality:
        trained, frozen = partition(model, lambda name, leaf: True)
        result = held_out.make_evaluate(objective, call)(trained, {"model": frozen}, batches)
        leaves = jax.tree.leaves(model)
        losses = {name: value for name, value in result.items() if not name.endswith("_total")}
        return Quality(sum(leaf.size for leaf in leaves), sum(leaf.nbytes for leaf in leaves), losses)

    return measure, round(sum(float(jnp.sum(batch.weights)) for batch in batches))
