"""What is inside of a teacher, for a student to have too."""

from __future__ import annotations

from jaxlm.config.distillation import Feature
from jaxlm.layers.contracts import Batch, Call, Model, Output
from jaxlm.objectives.objective import Sums


def taps(features: tuple[Feature, ...]) -> tuple[str, ...]:
    """The activations that they are made of, of both models."""
    return ()


def sums(
    features: tuple[Feature, ...], model: Model, ours: Output, theirs: Output, batch: Batch, call: Call
) -> Sums:
    """Each feature's term: a sum over tokens."""
    return {}
