"""What binds a step, each with the figure that shows it and changes to try.

A finding is data: applying one of its fixes and planning again must improve its figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from jaxlm.config.chips import Chip
from jaxlm.config.experiment import Experiment
from jaxlm.config.flags import FLAGS
from jaxlm.config.memory import bytes_per_device
from jaxlm.config.numbers import divisors
from jaxlm.planning.changes import Words, changed, fits, policies, recomputed, words
from jaxlm.planning.collectives import Collective
from jaxlm.planning.hlo import Module

ROWS = 256
"""Fewest rows a shard of a gathered dimension keeps on a TPU: below (128 where it is not the last dimension), XLA
all-reduces whole gradients instead of scattering them."""
LONG = 0.05
"""Seconds of a step from which on compiling for minutes more is worth it."""
WORTH = 0.005
"""Share of the step below which nothing is said."""


@dataclass(frozen=True)
class Finding:
    """One thing that costs, and what to do about it."""

    rule: str
    figure: str
    """The name of what a fix lowers, a key of `figures`."""
    value: float
    text: str
    fixes: tuple[Words, ...]
    """Changes to try, each as the words of a command line."""


@dataclass(frozen=True)
class Step:
    """What the rules look at."""

    experiment: Experiment
    chip: Chip
    devices: int
    module: Module
    collectives: Sequence[Collective]
    seconds: float
    """Estimated time of the step."""
    products: float
    model_flops: float
    peak: int
    """Bytes of a device in use."""

    @property
    def flags(self) -> tuple[str, ...]:
        """Sets of flags it was compiled with."""
        return self.experiment.where.flags

    def fits(self, **change: int | str) -> bool:
        """Whether a change divides, and fits by closed forms."""
        return fits(self.experiment, self.devices, change, self.peak, self.chip.memory)

    def words(self, **change: int | str) -> Words:
        """The command line of a change."""
        return words(self.experiment, change)

    def flagged(self, name: str) -> Words:
        """The command line of one more set of flags."""
        return ("--where.flags", *self.flags, name)

    def wait(self, some: Sequence[Collective]) -> float:
        """Share of the step that is spent waiting for some collectives."""
        return sum(one.step_wire / self.chip.wire(one.group) for one in some) / self.seconds


def figures(step: Step) -> dict[str, float]:
    """What findings speak of, to compare two plans by."""
    some = step.collectives
    looped = [one for one in some if one.kind == "all-gather" and one.in_loop]
    return {
        "seconds": step.seconds,
        "share of looped gathers that waits": _bytes(one for one in looped if not one.hidden)
        / (_bytes(looped) or 1),
        "exposed bytes": _bytes(one for one in some if not one.hidden),
        "exposed gather bytes": _bytes(one for one in some if one.kind == "all-gather" and not one.hidden),
        "all-reduced bytes in the layer loop": _bytes(_loop_reductions(step)),
        "gathered bytes": _bytes(one for one in some if one.kind == "all-gather"),
        "permuted bytes": _bytes(one for one in some if one.kind == "collective-permute"),
        "products over the model's": step.products / step.model_flops,
        "peak bytes": float(step.peak),
    }


def findings(step: Step) -> list[Finding]:
    """Everything that the rules find, those that cost most first as far as that is known."""
    rules = (
        _sharded_too_thin,
        _sync_gathers,
        _tensor_waits,
        _windowed,
        _recomputation,
        _micro_batches,
        _vmem,
    )
    return [finding for rule in rules for finding in rule(step)]


def _bytes(some: Iterable[Collective]) -> float:
    return sum(one.step_wire for one in some)


def _loop_reductions(step: Step) -> list[Collective]:
    """All-reduces of a loop along the axes that store parameters."""
    return [one for one in step.collectives if one.kind == "all-reduce" and one.in_loop and "fsdp" in one.axes]


def _sharded_too_thin(step: Step) -> Iterator[Finding]:
    some = _loop_reductions(step)
    fsdp, embed = step.experiment.where.mesh.fsdp, step.experiment.model.embed
    if step.chip.platform != "tpu" or step.wait(some) < WORTH:
        return
    wider = [n for n in divisors(fsdp) if embed // n >= ROWS and n < fsdp]
    text = (
        f"{_gib(_bytes(some))} a step are all-reduced along fsdp inside of loops: with {embed} / {fsdp} = "
        f"{embed // fsdp} rows a shard the compiler sums whole gradients instead of scattering them"
    )
    fixes = tuple(step.words(fsdp=n) for n in wider[-1:] if step.fits(fsdp=n))
    yield Finding("shards too thin", "all-reduced bytes in the layer loop", _bytes(some), text, fixes)


def _sync_gathers(step: Step) -> Iterator[Finding]:
    gathers = [one for one in step.collectives if one.kind == "all-gather" and one.in_loop]
    waiting = [one for one in gathers if not one.hidden]
    if not gathers or _bytes(waiting) < 0.2 * _bytes(gathers) or step.wait(waiting) < WORTH:
        return
    missing = step.chip.name in FLAGS["async_gathers"].chips and "async_gathers" not in step.flags
    fixes = (step.flagged("async_gathers"),) if missing else ()
    text = f"{_gib(_bytes(waiting))} of {_gib(_bytes(gathers))} gathered inside of loops are waited for"
    value = _bytes(one for one in step.collectives if one.kind == "all-gather" and not one.hidden)
    yield Finding("gathers not hidden", "exposed gather bytes", value, text, fixes)


def _tensor_waits(step: Step) -> Iterator[Finding]:
    waiting = [one for one in step.collectives if "tensor" in one.axes and one.in_loop and not one.hidden]
    tensor, fsdp = step.experiment.where.mesh.tensor, step.experiment.where.mesh.fsdp
    if step.wait(waiting) < 0.1:
        return
    text = f"{_gib(_bytes(waiting))} a step of activations are waited for along tensor {tensor}"
    fixes = (step.words(tensor=tensor // 2, fsdp=fsdp * 2),) if tensor % 2 == 0 else ()
    yield Finding("tensor shards wait", "exposed bytes", figures(step)["exposed bytes"], text, fixes)


def _windowed(step: Step) -> Iterator[Finding]:
    some = [
        one for one in step.collectives if one.kind == "collective-permute" and one.in_loop and "tensor" in one.axes
    ]
    if len(some) < 8 or "plain_products" in step.flags or step.chip.platform != "tpu":
        return
    fixes = (step.flagged("plain_products"),)
    text = (
        f"products along tensor are cut into {len(some)} permutations inside of loops, {_gib(_bytes(some))} a step"
    )
    yield Finding("windowed products", "permuted bytes", figures(step)["permuted bytes"], text, fixes)


def _recomputation(step: Step) -> Iterator[Finding]:
    ratio = step.products / step.model_flops
    current = step.experiment.where.remat
    if ratio < 1.2 or recomputed(step.experiment.model, current, step.experiment.train.length) < 0.1:
        return
    saved = {
        one: bytes_per_device(changed(step.experiment, remat=one), step.devices)["activations"]
        for one in policies()
    }
    kept = bytes_per_device(step.experiment, step.devices)["activations"]
    more = sorted((one for one in saved if saved[one] > kept), key=saved.__getitem__)
    fixes = tuple(step.words(remat=one) for one in more if step.fits(remat=one))
    text = f"the step computes {ratio:.2f} times the model's products: remat {current} computes them again"
    if fixes:
        yield Finding("recomputation", "products over the model's", ratio, text, fixes[-1:])


def _micro_batches(step: Step) -> Iterator[Finding]:
    parts = step.experiment.where.micro_batches
    fewer = [n for n in divisors(parts) if n < parts and step.fits(micro_batches=n)]
    gathers = [one for one in step.collectives if one.kind == "all-gather"]
    if parts == 1 or not fewer or not gathers:
        return
    text = f"weights are gathered again for each of {parts} micro-batches: {_gib(_bytes(gathers))} a step"
    fixes = (step.words(micro_batches=fewer[0]),)
    yield Finding("more micro-batches than needed", "gathered bytes", _bytes(gathers), text, fixes)


def _vmem(step: Step) -> Iterator[Finding]:
    flags = FLAGS["vmem"]
    if (
        step.seconds < LONG
        or step.chip.name not in flags.chips
        or any(name in step.flags for name in ("vmem", "vmem_96"))
    ):
        return
    text = f"fusions use the default vector memory; estimated elsewhere: {flags.gains}; compiling takes longer"
    yield Finding("default vector memory", "seconds", step.seconds, text, (step.flagged("vmem"),))


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.1f} MiB"
