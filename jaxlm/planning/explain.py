"""A plan: everything that compiling a step has shown, as data to print, to keep and to compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jaxlib

from jaxlm.config.chips import Chip
from jaxlm.config.codec import what_hash
from jaxlm.config.errors import Failure
from jaxlm.config.experiment import Experiment
from jaxlm.planning import attention, buffers, collectives, estimate, findings, hlo, memory, topology
from jaxlm.planning.aot import Compiled, DoesNotFit, compile_step, does_not_fit
from jaxlm.planning.changes import smallest_change
from jaxlm.planning.collectives import Collective


@dataclass(frozen=True)
class Traffic:
    """Collectives that are alike, together."""

    kind: str
    axes: str
    where: str
    """"in a loop" or "once"."""
    hidden: bool
    instructions: int
    bytes: float
    """That a chip sends in a step."""
    seconds: float
    """At link speed."""


@dataclass(frozen=True)
class Plan:
    """What a run will come to on a topology. Bytes are those of one device, times are estimates."""

    experiment: str
    what: str
    topology: str
    devices: int
    mesh: dict[str, int]
    batch: tuple[int, int]
    """Rows and tokens of a row."""
    micro_batches: int
    remat: str
    flags: tuple[str, ...]
    memory: dict[str, int]
    peak: int
    available: int
    host: int
    estimate: estimate.Estimate
    traffic: tuple[Traffic, ...]
    buffers: tuple[buffers.Buffer, ...]
    untimed: dict[str, int]
    """Pallas kernels that no estimate covers, and how often a step runs them."""
    findings: tuple[findings.Finding, ...]
    figures: dict[str, float]
    lower_seconds: float
    compile_seconds: float
    process_bytes: int
    versions: dict[str, str]

    def json(self) -> dict[str, Any]:
        """The plan as plain data."""
        return dataclasses.asdict(self)


def make_plan(experiment: Experiment, where: topology.Topology, price: float | None = None) -> tuple[Plan, str]:
    """The plan of an experiment on a topology, and the HLO text it was read from.

    Raises UsageError where experiment, mesh, flags and topology disagree, and Failure, with the smallest change
    that would help, where the step does not fit.
    """
    chip = where.chip
    found = topology.devices(where)
    compiled = _compiled(experiment, where, found)
    module = hlo.parse(compiled.text)
    some = collectives.collectives(module, compiled.mesh)
    estimated = estimate.estimate(
        experiment,
        chip,
        module,
        some,
        devices=len(found),
        chips=where.chips,
        products=compiled.products,
        price=price,
    )
    step = findings.Step(
        experiment=experiment,
        chip=chip,
        devices=len(found),
        module=module,
        collectives=some,
        seconds=estimated.step,
        products=estimated.hardware_flops,
        model_flops=estimated.model_flops,
        peak=compiled.peak,
    )
    train = experiment.train
    plan = Plan(
        experiment=experiment.name,
        what=what_hash(experiment)[:16],
        topology=str(where),
        devices=len(found),
        mesh={axis: count for axis, count in compiled.mesh.items() if count > 1},
        batch=(train.batch, train.length),
        micro_batches=experiment.where.micro_batches,
        remat=experiment.where.remat,
        flags=experiment.where.flags,
        memory=memory.categories(experiment, compiled, len(found)),
        peak=compiled.peak,
        available=chip.memory,
        host=compiled.host,
        estimate=estimated,
        traffic=tuple(_traffic(some, chip)),
        buffers=tuple(buffers.largest(module)),
        untimed={} if chip.platform == "cuda" else attention.other_kernels(module),
        findings=tuple(findings.findings(step)),
        figures=findings.figures(step),
        lower_seconds=compiled.lower_seconds,
        compile_seconds=compiled.compile_seconds,
        process_bytes=compiled.process_bytes,
        versions={"jax": jax.__version__, "jaxlib": jaxlib.__version__},
    )
    return plan, compiled.text


def _compiled(experiment: Experiment, where: topology.Topology, found: list[jax.Device]) -> Compiled:
    try:
        compiled = compile_step(experiment, found)
        # That a TPU compiler takes a step is the proof that it fits; GPU compilers take any.
        if where.chip.platform == "cuda" and compiled.peak > where.chip.memory:
            raise does_not_fit(compiled.peak, where.chip.memory)
    except DoesNotFit as error:
        raise Failure(_too_large(experiment, where, len(found), error)) from None
    return compiled


def _too_large(experiment: Experiment, where: topology.Topology, devices: int, error: DoesNotFit) -> str:
    change = smallest_change(experiment, devices, error.needed, error.available)
    advice = (
        f"the smallest change that fits by closed forms: {' '.join(change)}"
        if change
        else "by closed forms no rematerialization, micro-batch or number of shards fits: take more chips"
    )
    return f"{experiment.name} on {where} {error}; {advice}"


def _traffic(some: Sequence[Collective], chip: Chip) -> list[Traffic]:
    groups: dict[tuple[str, str, str, bool], list[Collective]] = {}
    for one in some:
        axes = " x ".join(one.axes) or f"{len(one.group)} devices"
        groups.setdefault((one.kind, axes, "in a loop" if one.in_loop else "once", one.hidden), []).append(one)
    rows = [
        Traffic(
            *key,
            instructions=len(group),
            bytes=sum(one.step_wire for one in group),
            seconds=sum(one.step_wire / chip.wire(one.group) for one in group),
        )
        for key, group in groups.items()
    ]
    return sorted(rows, key=lambda row: -row.seconds)
