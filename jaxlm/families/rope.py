"""Rotary positions as a config.json tells them."""

from __future__ import annotations

import math
from typing import Any

from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.position import DynamicNtk, Interpolated, Llama3, Rope, Scaling, Unscaled, Yarn
from jaxlm.families.settings import Settings


def read(told: Settings, fraction: float = 1.0) -> Rope:
    """Planes in halves of the first `fraction` of a head, their base and scaling as settings tell.

    Newer files keep everything in `rope_parameters`, older ones in `rope_theta` and `rope_scaling`. "dynamic" is
    read for rows of at most `max_position_embeddings`: it depends on each longer row's length, and for those of one
    length the `target` can be changed. Raises Failure for what is missing or not known.
    """
    turns = dict(told.take("rope_scaling", None) or {}) | dict(told.take("rope_parameters", None) or {})
    inner = Settings({"rope_theta": told.take("rope_theta", 10_000.0)} | turns)
    kind = inner.take("rope_type", inner.take("type", "default"))
    theta = float(inner.take("rope_theta"))
    if kind == "dynamic":
        length = told.take("max_position_embeddings")
        scaling = DynamicNtk(float(inner.take("factor")), length, length)
    else:
        scaling = _scaling(kind, inner)
    inner.expect("partial_rotary_factor", fraction)
    inner.finish("original_max_position_embeddings")
    return Rope(theta, fraction, scaling=scaling)


def _scaling(kind: str, told: Settings) -> Scaling:
    match kind:
        case "default":
            return Unscaled()
        case "linear":
            return Interpolated(float(told.take("factor")))
        case "yarn":
            length = told.take("original_max_position_embeddings")
            fast, slow = float(told.take("beta_fast", 32)), float(told.take("beta_slow", 1))
            return Yarn(float(told.take("factor")), length, fast, slow)
        case "llama3":
            length = told.take("original_max_position_embeddings")
            fast, slow = float(told.take("high_freq_factor")), float(told.take("low_freq_factor"))
            return Llama3(float(told.take("factor")), length, fast, slow)
    known = "default, linear, dynamic, yarn and llama3"
    raise Failure(f"config.json: rope_type is {kind!r}, and only {known} are known here")


def write(rope: Rope, length: int) -> dict[str, Any]:
    """The `rope_parameters` that `read` would give this for, in a model of rows of `length`.

    The fraction is the family's to tell. Raises UsageError for planes that are turned for rows of another length
    than the training's: in a config.json each row's own length decides.
    """
    told: dict[str, Any] = {"rope_theta": rope.theta, "rope_type": "default"}
    match rope.scaling:
        case Interpolated(factor):
            told |= {"rope_type": "linear", "factor": factor}
        case DynamicNtk(factor, trained, target):
            if not trained == target == length:
                raise UsageError(
                    f"dynamic_ntk: this model turns all rows as those of {target} tokens, a config.json each by "
                    f"its own length beyond the {trained} of the training: set scaling.target and train.length to "
                    f"{trained}, or choose unscaled, with the base that this scaling comes to as theta"
                )
            told |= {"rope_type": "dynamic", "factor": factor}
        case Yarn(factor, trained, fast, slow):
            told |= {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained}
            told |= {"beta_fast": fast, "beta_slow": slow}
        case Llama3(factor, trained, fast, slow):
            told |= {"rope_type": "llama3", "factor": factor, "original_max_position_embeddings": trained}
            told |= {"high_freq_factor": fast, "low_freq_factor": slow}
    return told


def share(rotated: int, head: int) -> float:
    """The fraction of a head that is `rotated` features, also where the quotient is rounded below it."""
    found = rotated / head
    return found if int(found * head) == rotated else math.nextafter(found, 1.0)
