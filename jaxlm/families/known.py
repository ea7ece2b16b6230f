"""The families that models are exchanged with, by the `model_type` of their config.json."""

from __future__ import annotations

from types import ModuleType

from jaxlm.config.errors import Failure
from jaxlm.config.suggest import nearest
from jaxlm.families import gpt2, gpt_bigcode, llama, phi3, qwen2

ALL = (gpt2, gpt_bigcode, llama, phi3, qwen2)
FAMILIES: dict[str, ModuleType] = {name: family for family in ALL for name in family.MODEL_TYPES}
"""Each has `read`, `write`, `TABLE`, `DERIVED` and `OMITTED`."""


def family(model_type: str) -> ModuleType:
    """The family of a `model_type`. Raises Failure that names the known ones, the nearest first."""
    if model_type not in FAMILIES:
        names = ", ".join(nearest(model_type, list(FAMILIES), len(FAMILIES)))
        raise Failure(f"config.json: model_type {model_type!r} is not known here; nearest first: {names}")
    return FAMILIES[model_type]
