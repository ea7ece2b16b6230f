"""A step's memory by what it is for, against what a chip has."""

from __future__ import annotations

from jaxlm.config.experiment import Experiment
from jaxlm.config.memory import bytes_per_device
from jaxlm.planning.aot import Compiled


def categories(experiment: Experiment, compiled: Compiled, devices: int) -> dict[str, int]:
    """Bytes of a device by category, which add up to the compiler's peak.

    Arguments are exact. What comes on top is the compiler's: gradients are told apart in closed form, the rest is
    what the backward pass was left and scratch.
    """
    found = {name: count for name, count in compiled.parts.items() if count}
    above = max(compiled.peak - compiled.arguments, 0)
    found["gradients"] = min(bytes_per_device(experiment, devices)["gradients"], above)
    found["activations and scratch"] = above - found["gradients"]
    return found
