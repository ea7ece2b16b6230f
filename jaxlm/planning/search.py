"""Which mesh, micro-batches and rematerialization are best: all by closed forms, the best few by the compiler.

The closed form knows what the compiler's estimate is made of, roughly: products at a stated share of peak, weights
gathered over fsdp behind compute, gradients scattered in front of it, activations joined along tensor. It ranks;
it predicts nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxlm.config.chips import Chip
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.flops import BYTES, bytes_per_device, flops_per_token, parameters, shape_of_mesh
from jaxlm.config.model import EncoderDecoder
from jaxlm.config.numbers import divisors
from jaxlm.config.paths import leaves
from jaxlm.config.precision import PRECISIONS
from jaxlm.planning.changes import HEADROOM, Words, changed, policies, recomputed, words
from jaxlm.planning.findings import ROWS

if TYPE_CHECKING:
    from jaxlm.planning.explain import Plan

SHARE = 0.7
"""Of peak that a step's products reach."""
WIDEST_TENSOR = 16


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
    embed, rows = experiment.model.embed, experiment.train.batch
    cut = [leaf.value for path, leaf in leaves(experiment.model).items() if _is_cut(path)]
    cut += [experiment.model.vocab, experiment.train.length]
    replica = experiment.where.mesh.replica
    if devices % replica:
        return
    devices, rows = devices // replica, rows // replica if rows % replica == 0 else 0
    for tensor in divisors(devices) if rows else ():
        if tensor > WIDEST_TENSOR or any(width % tensor for width in cut):
            continue
        for fsdp in divisors(devices // tensor):
            if embed % fsdp:
                continue
            shards = devices // tensor
            for parts in divisors(rows // shards) if rows % shards == 0 else ():
                for policy in policies():
                    yield {"tensor": tensor, "fsdp": fsdp, "micro_batches": parts, "remat": policy}


def _is_cut(path: str) -> bool:
    """Whether a field of the model counts what tensor shards divide."""
    return path.rsplit(".", 1)[-1] in ("heads", "kv_heads", "width")


def seconds(experiment: Experiment, chip: Chip, devices: int) -> float:
    """Seconds of a step in closed form: compute, and what no compute hides."""
    mesh = shape_of_mesh(experiment, devices)
    data, fsdp, tensor = mesh["data"], mesh["fsdp"], mesh["tensor"]
    model, train, where = experiment.model, experiment.train, experiment.where
    tokens = train.batch * train.length
    flops = flops_per_token(model, train.length)
    again = recomputed(model, where.remat, train.length)
    compute = tokens * (flops["training"] + again * flops["forward"]) / (devices * chip.peak * SHARE)

    wide = BYTES[PRECISIONS[experiment.precision].compute]
    weights = parameters(model)["total"] * wide / tensor
    over = (fsdp - 1) / fsdp * where.micro_batches
    gathers = 2 * weights * over
    # thin shards are not scattered but summed whole, and nothing of it hides
    thin = chip.platform == "tpu" and model.embed // fsdp < ROWS
    scatters = weights * over * (2 if thin else 1)
    replicas = 2 * weights / fsdp * (data - 1) / data
    slices = mesh["replica"]
    between = 2 * weights / fsdp * (slices - 1) / slices / chip.network if slices > 1 else 0.0
    layers = model.encoder_layers + model.decoder_layers if isinstance(model, EncoderDecoder) else model.layers
    activations = tokens / (slices * data * fsdp) * model.embed * wide
    # attention and MLP each join their tokens and scatter their sums, forward and backward
    sums = (4 + 2 * again) * layers * activations * 2 * (tensor - 1) / tensor
    wire = chip.wire()
    hidden = max(0.0, gathers / wire - compute)
    return compute + hidden + (scatters + replicas + sums) / wire + between
