"""A step's memory by what it is for, against what a chip has."""

from __future__ import annotations

from jaxlm.config.experiment import Experiment
from jaxlm.config.flops import bytes_per_device
from jaxlm.planning.aot import Compiled


def categories(experiment: Experiment, compiled: Compiled, devices: int) -> dict[str, int]:
    """Bytes of a device by category; arguments are exact, the compiler's temporaries are told apart in closed form.

    `activations and scratch` is what the temporaries hold beside gradients: what the backward pass was left, and
    the compiler's own.
    """
    gradients = min(bytes_per_device(experiment, devices)["gradients"], compiled.temporaries)
    found = {name: count for name, count in compiled.parts.items() if count}
    found["gradients"] = gradients
    found["activations and scratch"] = compiled.temporaries - gradients
    if compiled.outputs > compiled.aliased:
        found["results"] = compiled.outputs - compiled.aliased
    return found
