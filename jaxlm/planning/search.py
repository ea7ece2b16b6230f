"""Which mesh, micro-batches and rematerialization are best: all by closed forms, the best few by the compiler.

The closed form knows what the compiler's estimate is made of, roughly: products at a stated share of peak, weights
gathered over fsdp behind compute, gradients scattered in front of it, activations joined along tensor. It ranks;
it predicts nothing. Slices and the stages of a pipeline are not searched: they stay as the experiment has them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd
from typing import TYPE_CHECKING, Any

from jaxlm.config.block import Capacity, Moe
from jaxlm.config.chips import Chip
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.flops import every_block, experts, flops_of, parameters
from jaxlm.config.memory import BYTES, bytes_per_device, shape_of_mesh
from jaxlm.config.model import Model
from jaxlm.config.numbers import divisors
from jaxlm.config.paths import leaves
from jaxlm.config.precision import PRECISIONS
from jaxlm.config.recurrent import Recurrent
from jaxlm.planning.changes import HEADROOM, Words, changed, policies, recomputed, words
from jaxlm.planning.findings import ROWS

if TYPE_CHECKING:
    from jaxlm.planning.explain import Plan

SHARE = 0.7
"""Of peak that a step's products reach."""
WIDEST_TENSOR = 16
LEAST_POSITIONS = 4096
"""Of a row that several devices share, on each: with fewer, keys and values arrive later than they are needed."""


@dataclass(frozen=True)
class Candidate:
    """One way to run the experiment."""

    change: Words
    """The words of a command line that ask for it."""
    experiment: Experiment
    seconds: float
    """Of a step, by the closed form."""
    bytes: int
    """Of a device, by the closed form."""


@dataclass(frozen=True)
class Compiled:
    """A candidate and what the compiler made of it."""

    candidate: Candidate
    plan: Plan | None
    """None where it was refused."""
    refusal: str = ""

    @property
    def seconds(self) -> float | None:
        """Of a step, by the compiled plan."""
        return self.plan and self.plan.estimate.step

    @property
    def mfu(self) -> float | None:
        """Share of peak, by the compiled plan."""
        return self.plan and self.plan.estimate.mfu

    @property
    def peak(self) -> int | None:
        """Bytes of a device, by the compiled plan."""
        return self.plan and self.plan.peak

    def data(self) -> dict[str, Any]:
        """As plain data, without the experiment."""
        return {
            "change": list(self.candidate.change),
            "closed_seconds": self.candidate.seconds,
            "closed_bytes": self.candidate.bytes,
            "seconds": self.seconds,
            "mfu": self.mfu,
            "peak": self.peak,
            "refusal": self.refusal,
        }


def candidates(experiment: Experiment, chip: Chip, devices: int) -> list[Candidate]:
    """Every mesh, split and policy that divides and fits by closed forms, the fastest first."""
    found = []
    for change in _changes(experiment, devices):
        tree = changed(experiment, **change)
        held = bytes_per_device(tree, devices)["total"]
        if held <= HEADROOM * chip.memory:
            found.append(Candidate(words(experiment, change), tree, seconds(tree, chip, devices), held))
    return sorted(found, key=lambda one: one.seconds)


def best(some: Sequence[Candidate], count: int) -> list[Candidate]:
    """The fastest of each mesh, so that what is compiled differs in what closed forms know least."""
    chosen: dict[tuple, Candidate] = {}
    for one in some:
        chosen.setdefault(dataclasses.astuple(one.experiment.where.mesh), one)
    return list(chosen.values())[:count]


def compile_best(some: Sequence[Candidate], plan: Callable[[Experiment], Plan]) -> Iterator[Compiled]:
    """Each candidate compiled by `plan`, in the order given."""
    for one in some:
        try:
            yield Compiled(one, plan(one.experiment))
        except (Failure, UsageError) as error:
            yield Compiled(one, None, str(error))


def ranked(some: Sequence[Compiled]) -> list[Compiled]:
    """The fastest first, refused ones last."""
    return sorted(some, key=lambda one: (one.seconds is None, one.seconds))


def _changes(experiment: Experiment, devices: int) -> Iterator[dict[str, int | str]]:
    """Every mesh, split and policy that divides; slices and stages stay as the experiment has them."""
    model, train, mesh = experiment.model, experiment.train, experiment.where.mesh
    cut = [leaf.value for path, leaf in leaves(model).items() if _is_cut(path)] + [model.vocab]
    fixed = mesh.replica * mesh.pipeline
    if devices % fixed or train.batch % fixed:
        return
    devices, rows = devices // fixed, train.batch // fixed
    for tensor, context, expert in product(divisors(devices), _contexts(experiment), divisors(_experts(model))):
        whole, left = divmod(devices, tensor * context)
        if left or whole % expert or rows % whole or tensor > WIDEST_TENSOR:
            continue
        if train.length % (tensor * context) or any(width % tensor for width in cut):
            continue
        for fsdp in divisors(whole // expert):
            if model.embed % (fsdp * context):
                continue
            for parts, policy in product(divisors(rows // whole), policies()):
                found = {"tensor": tensor, "context": context, "expert": expert, "fsdp": fsdp}
                yield {**found, "micro_batches": parts, "remat": policy}


def _contexts(experiment: Experiment) -> list[int]:
    """How many devices may share a row; a capacity's group of rows is never cut."""
    if any(isinstance(one.dispatch, Capacity) for one in _mixtures(experiment.model)):
        return [1]
    length = experiment.train.length
    return [1, *(n for n in divisors(length) if n > 1 and length % (2 * n) == 0 and length // n >= LEAST_POSITIONS)]


def _experts(model: Model) -> int:
    """What the expert axis must divide; 1 without experts."""
    return gcd(*(one.experts for one in _mixtures(model))) or 1


def _mixtures(model: Model) -> list[Moe]:
    some = [] if isinstance(model, Recurrent) else every_block(model)
    return [one.mlp for one in some if isinstance(one.mlp, Moe)]


def _is_cut(path: str) -> bool:
    """Whether a field of the model counts what tensor shards divide."""
    return path.rsplit(".", 1)[-1] in ("heads", "kv_heads", "width")


def seconds(experiment: Experiment, chip: Chip, devices: int) -> float:
    """Seconds of a step in closed form: compute, and what no compute hides."""
    mesh = shape_of_mesh(experiment, devices)
    model, train, where = experiment.model, experiment.train, experiment.where
    tokens = train.batch * train.length
    flops = flops_of(experiment)
    again = recomputed(model, where.remat, train.length)
    stages, flow = mesh["pipeline"], where.pipeline
    work = flow.rounds * flow.flight(stages)
    idle = (work + stages - 1) / work if stages > 1 else 1.0
    compute = idle * tokens * (flops["training"] + again * flops["forward"]) / (devices * chip.peak * SHARE)
    wire = chip.wire()
    behind, waiting = _weights(experiment, chip, mesh)
    passed, joined = _activations(experiment, mesh, again)
    slices = mesh["replica"]
    whole = parameters(model)["total"] * _wide(experiment) / (mesh["tensor"] * mesh["fsdp"] * mesh["context"])
    between = 2 * whole * (slices - 1) / slices / chip.network if slices > 1 else 0.0
    hidden = max(0.0, (behind + passed) / wire - compute)
    return compute + hidden + (waiting + joined) / wire + between


def _wide(experiment: Experiment) -> int:
    return BYTES[PRECISIONS[experiment.precision].compute]


def _weights(experiment: Experiment, chip: Chip, mesh: dict[str, int]) -> tuple[float, float]:
    """Bytes of parameters and their gradients on a device's wires: those behind compute, those waited for."""
    model, where = experiment.model, experiment.where
    shards, stages = mesh["fsdp"] * mesh["context"], mesh["pipeline"]
    own = experts(model) / mesh["expert"]
    dense = parameters(model)["total"] - experts(model)
    dense, own = (one * _wide(experiment) / (mesh["tensor"] * stages) for one in (dense, own))
    times = where.micro_batches
    if stages > 1:  # stages gather for every tick
        times *= where.pipeline.rounds * where.pipeline.flight(stages) + stages - 1
    over = (dense + own) * (shards - 1) / shards * times
    # thin shards are not scattered but summed whole, and nothing of it hides
    thin = chip.platform == "tpu" and shards > 1 and model.embed // shards < ROWS
    copies, others = mesh["data"], mesh["data"] * mesh["expert"]
    summed = 2 / shards * (own * (copies - 1) / copies + dense * (others - 1) / others)
    return 2 * over, over * (2 if thin else 1) + summed


def _activations(experiment: Experiment, mesh: dict[str, int], again: float) -> tuple[float, float]:
    """Bytes of activations on a device's wires: keys and values that go round behind compute, tokens waited for."""
    model, train = experiment.model, experiment.train
    tensor, context, expert = mesh["tensor"], mesh["context"], mesh["expert"]
    shards = mesh["replica"] * mesh["data"] * mesh["fsdp"] * expert * context
    tokens = train.batch * train.length / shards * _wide(experiment)
    layers = model.layers if isinstance(model, Recurrent) else len(every_block(model))
    # attention and MLP each join their tokens and scatter their sums, forward and backward
    joined = (4 + 2 * again) * layers / mesh["pipeline"] * tokens * model.embed * 2 * (tensor - 1) / tensor
    # so do a mixture's experts
    mixed = len(_mixtures(model)) / mesh["pipeline"]
    joined += (2 + again) * 2 * mixed * tokens / tensor * model.embed * (expert - 1)
    if context == 1 or isinstance(model, Recurrent):
        return 0.0, joined
    # once forward, and backward with their gradients in twice the bytes
    width = sum(2 * one.attention.kv_heads * one.attention.head for one in every_block(model))
    return (4 + again) * (context - 1) * tokens / tensor * width / mesh["pipeline"], joined
