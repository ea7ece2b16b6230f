"""Which number format each part of a training step uses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """Number formats by role; softmax statistics, norms and losses are float32 whatever is named here."""

    parameters: str = "float32"
    compute: str = "float32"
    """Operands of every product with weights, and the residual stream."""
    accumulation: str = "float32"
    """Gradients summed over micro-batches."""
    logits: str = "float32"
    optimizer: str = "float32"
    """The optimizer's first moments; second moments stay float32."""


PRECISIONS = {
    "float32": Precision(),
    "bfloat16": Precision(compute="bfloat16"),
    "bfloat16_all": Precision(*["bfloat16"] * 5),
}
"""The names an experiment's `precision` can take."""
