"""What a run measures, beside the plan that is kept with its experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import jax

from jaxlm.config import Experiment
from jaxlm.config.chips import Chip, of_kind
from jaxlm.config.errors import Failure
from jaxlm.config.flops import flops_of
from jaxlm.runs import plans
from jaxlm.train.session import Session
from jaxlm.train.setup import Setup

GIB = 2**30
Say = Callable[[str], None]
Rows = dict[str, tuple[float, float]]
"""Name and unit of a figure -> (planned, measured)."""


def find(setup: Setup, directory: Path | None, say: Say) -> plans.Plan | None:
    """The plan of these devices, told in a line; None where there is none. A damaged one is told and left out."""
    if directory is None or jax.process_index():
        return None
    kind, devices = _devices(setup)
    chip = of_kind(kind)
    try:
        plan = plans.find(directory, setup.experiment, chip.name if chip else kind, devices)
    except Failure as error:
        say(f"plan left out: {error}")
        return None
    if plan is not None:
        differs = "; ".join(_differences(plan, setup))
        also = f"; this run differs: {differs}" if differs else ""
        say(
            f"plan {plan['topology']}: {_shown(plan['mesh'])}, step {_number(plan['step ms'])} ms, "
            f"MFU {plan['mfu']:.1f} %, peak {_number(plan['peak GiB'])} GiB{also}"
        )
    return plan


def compare(session: Session) -> None:
    """A table of what was planned and what was measured, where there is a plan; the journal has it too."""
    if session.plan is None:
        return
    seconds = step_seconds(session.marks)
    if seconds is None:
        session.display.say("plan: too few steps were logged to compare with it")
        return
    kind, devices = _devices(session.setup)
    found = rows(session.plan, session.experiment, of_kind(kind), devices, seconds, _peak_bytes())
    session.display.say(f"{'':10}{'planned':>12}{'measured':>12}{'ratio':>8}")
    for name, (planned, measured) in found.items():
        ratio = f"{measured / planned:.2f}" if planned else "-"
        session.display.say(f"{name:10}{_number(planned):>12}{_number(measured):>12}{ratio:>8}")
    figures = {name: {"planned": planned, "measured": measured} for name, (planned, measured) in found.items()}
    session.journal.write("event", session.marks[-1][0], event="planned", figures=figures)


def step_seconds(marks: list[tuple[int, float]]) -> float | None:
    """Median seconds of a step over the intervals between marks (steps done, seconds spent on them).

    The first interval, which holds the first step of the program, is left out; None where there is no other.
    """
    pairs = list(pairwise(marks[1:]))
    return median((after - before) / (done - first) for (first, before), (done, after) in pairs) if pairs else None


def rows(
    plan: plans.Plan, experiment: Experiment, chip: Chip | None, devices: int, seconds: float, peak: int | None
) -> Rows:
    """What was planned and measured: utilization where the chip is known, memory where devices tell it."""
    tokens = experiment.train.batch * experiment.train.length
    found = {
        "step, ms": (plan["step ms"], 1e3 * seconds),
        "tokens/s": (tokens / plan["step ms"] * 1e3, tokens / seconds),
    }
    if chip is not None:
        flops = flops_of(experiment)["training"] * tokens
        found["MFU, %"] = (plan["mfu"], 100 * flops / (devices * chip.peak * seconds))
    if peak is not None:
        found["peak, GiB"] = (plan["peak GiB"], peak / GIB)
    return found


def _devices(setup: Setup) -> tuple[str, int]:
    """(Kind as jax names it, number) of the devices of a run."""
    devices = setup.call.layout.mesh.devices
    return devices.flat[0].device_kind, devices.size


def _differences(plan: plans.Plan, setup: Setup) -> Iterator[str]:
    """What of how the run is computed is not as planned."""
    where, mesh = setup.experiment.where, setup.call.layout.mesh.shape
    here = {
        "mesh": {axis: size for axis, size in mesh.items() if size > 1},
        "remat": where.remat,
        "micro_batches": where.micro_batches,
        "flags": sorted(where.flags),
    }
    for name, value in here.items():
        planned = sorted(plan[name]) if name == "flags" else plan[name]
        if value != planned:
            yield f"{name} {_shown(value)} (planned {_shown(planned)})"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return " x ".join(f"{axis} {size}" for axis, size in value.items()) or "one device"
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)


def _peak_bytes() -> int | None:
    """The most memory that a device of this process has used; None where devices do not tell."""
    found = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    return max((each for each in found if each is not None), default=None)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
