"""From a compiled step to seconds, utilization and cost, and how much to believe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxlm.config.chips import Chip
from jaxlm.config.experiment import Experiment
from jaxlm.config.flags import FLAGS
from jaxlm.config.flops import flops_of
from jaxlm.config.model import Decoder
from jaxlm.config.paths import leaves
from jaxlm.planning import attention, experts, roofline
from jaxlm.planning.collectives import Collective
from jaxlm.planning.hlo import Module

METHOD = "Step = compiler's cycles + pessimistic kernels + waiting for collectives at link speed; estimates, "
CALIBRATION = {
    "default": (
        f"{METHOD}nothing has run on the chips. A floor: by this method three published MaxText runs (70B on 512 "
        "v5p, 64B on 64 v5p, 32B on 256 v5e) come out 11 to 31 % slower than they were measured."
    ),
    "uncalibrated": (
        f"{METHOD}nothing has run on the chips. Uncalibrated: under the flags {{flags}} no estimate has been "
        "compared with a measured step; they take about 20 % off the cycles, which would bring estimates of "
        "published runs near or below what was measured."
    ),
    "roofline": (
        f"A stated roofline, not a compiler's cycles: a kernel takes the longer of its products at "
        f"{roofline.PRODUCTS:.0%} of peak (attention by what was measured) and its memory traffic at "
        f"{roofline.MEMORY:.0%} of bandwidth; collectives that nothing hides are waited for at link speed. "
        "Calibrated on one H100 and two models; several of them were not measured."
    ),
}
"""What every table says about its figures."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of a step and what follows from them."""

    compute: float
    attention: float
    """In kernels of attention, and the next in those of experts: the compiler counts no cycles of them."""
    experts: float
    exposed: float
    """Waiting for collectives that nothing hides."""
    hidden: float
    """Collectives that go on behind compute, at link speed; not part of the step's time."""
    step: float
    model_flops: float
    """Of a step on all devices: no recomputation, causal attention halved."""
    hardware_flops: float
    """Of a step on all devices, as traced: recomputation and masked scores included."""
    mfu: float
    hfu: float
    tokens_per_day: float
    chip_hours: float
    cost: float | None
    """USD for the run; None where the chip has no price."""
    calibration: str


def window(experiment: Experiment) -> int | None:
    """The attention window of all layers, or None where they differ or have none (the dearer case)."""
    found = {leaf.value for path, leaf in leaves(experiment.model).items() if path.endswith("attention.window")}
    return found.pop() if len(found) == 1 else None


def exposed_seconds(some: Sequence[Collective], chip: Chip) -> float:
    """Time that chips wait for collectives with nothing to do."""
    return sum(one.step_wire / chip.wire(one.group) for one in some if not one.hidden)


def hidden_seconds(some: Sequence[Collective], chip: Chip) -> float:
    """Time that collectives take behind compute."""
    return sum(one.step_wire / chip.wire(one.group) for one in some if one.hidden)


def estimate(
    experiment: Experiment,
    chip: Chip,
    module: Module,
    some: Sequence[Collective],
    *,
    devices: int,
    chips: int,
    products: float,
    price: float | None = None,
) -> Estimate:
    """The estimate of a compiled step; `products` are its traced FLOPs, `price` USD an hour and chip."""
    gpu = chip.platform == "cuda"
    compute = roofline.seconds(module, chip) if gpu else module.cycles / chip.clock
    kernels = [] if gpu else attention.kernels(module)
    # Of an encoder-decoder's kernels some are causal: the dearer case counts for all.
    causal = isinstance(experiment.model, Decoder)
    serial = attention.pessimistic(kernels, chip, window(experiment), causal=causal)
    mixed = 0.0 if gpu else experts.pessimistic(experts.kernels(module), chip)
    exposed = exposed_seconds(some, chip)
    step = compute + serial + mixed + exposed
    train = experiment.train
    tokens = train.batch * train.length
    flops = flops_of(experiment)["training"] * tokens
    ideal = flops / (devices * chip.peak)
    hours = train.steps * step * chips / 3600
    price = chip.price if price is None else price
    return Estimate(
        compute=compute,
        attention=serial,
        experts=mixed,
        exposed=exposed,
        hidden=hidden_seconds(some, chip),
        step=step,
        model_flops=flops,
        hardware_flops=products,
        mfu=ideal / step,
        hfu=products / (devices * chip.peak * step),
        tokens_per_day=tokens * 86_400 / step,
        chip_hours=hours,
        cost=None if price is None else hours * price,
        calibration=_calibration(gpu, experiment.where.flags),
    )


def _calibration(gpu: bool, flags: Sequence[str]) -> str:
    if gpu:
        return CALIBRATION["roofline"]
    doubtful = [name for name in flags if not FLAGS[name].calibrated]
    return CALIBRATION["uncalibrated"].format(flags=", ".join(doubtful)) if doubtful else CALIBRATION["default"]
