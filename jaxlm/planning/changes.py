"""Changes of where a step runs: what they add to its memory by closed forms, and the words that ask for them."""

from __future__ import annotations

import dataclasses
from math import prod

from jaxlm.config.block import Gated
from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.flops import every_block, flops_per_token
from jaxlm.config.memory import bytes_per_device
from jaxlm.config.model import EncoderDecoder, Model
from jaxlm.config.numbers import divisors
from jaxlm.config.recurrent import Recurrent
from jaxlm.config.remat import NAMES

Words = tuple[str, ...]
"""Part of a command line."""
Change = dict[str, int | str]
"""Fields of `where` or axes of its mesh -> their new values."""
HEADROOM = 0.92
"""Share of memory that a plan may fill."""


def policies() -> tuple[str, ...]:
    """Rematerialization policies to try; of what is saved by name, the last are the first to be left out."""
    return ("none", "dots", *("+".join(NAMES[:count]) for count in (7, 6, 5, 4)), "full")


def recomputed(model: Model, remat: str, length: int) -> float:
    """Share of the forward pass that the backward pass repeats under a policy."""
    flops = flops_per_token(model, length)
    if remat in ("none", "full"):
        return float(remat == "full")
    again = flops["attention"] if "attention" not in remat.split("+") else 0.0
    if remat == "dots" or isinstance(model, Recurrent | EncoderDecoder):
        return again / flops["forward"]
    for one in every_block(model):
        wide, narrow = one.attention.heads * one.attention.head, one.attention.kv_heads * one.attention.head
        sizes = {"query": wide, "key": narrow, "value": narrow, "middle": wide, "up": one.mlp.width}
        sizes |= {"gate": one.mlp.width} if isinstance(one.mlp, Gated) else {}
        again += sum(2 * model.embed * size for name, size in sizes.items() if name not in remat.split("+"))
    return again / flops["forward"]


def changed(experiment: Experiment, **change: int | str) -> Experiment:
    """The experiment with other axes of its mesh, micro-batches or policy; `data` takes what is left."""
    axes = {field.name for field in dataclasses.fields(experiment.where.mesh)}
    mesh = {name: value for name, value in change.items() if name in axes}
    where = {name: value for name, value in change.items() if name not in axes}
    if mesh:
        where["mesh"] = dataclasses.replace(experiment.where.mesh, **{"data": 0, **mesh})
    return dataclasses.replace(experiment, where=dataclasses.replace(experiment.where, **where))


def fits(experiment: Experiment, devices: int, change: Change, used: float, available: float) -> bool:
    """Whether a change divides and fits.

    What is used is known from the compiler. Closed forms leave scratch out, so that it shrinks with them in
    proportion; what a change adds counts as they have it.
    """
    if not _divides(experiment, devices, change):
        return False
    try:
        now, then = (bytes_per_device(one, devices)["total"] for one in (experiment, changed(experiment, **change)))
    except UsageError:
        return False
    scale = used / now if then < now else 1.0
    return used + (then - now) * scale <= HEADROOM * available


def smallest_change(experiment: Experiment, devices: int, needed: float, available: float) -> Words:
    """The least that makes a step fit by closed forms, as words of a command line; empty where nothing does.

    Tried in this order: another rematerialization, more micro-batches, more shards, and these together.
    """
    rows = experiment.train.batch
    saved = {one: bytes_per_device(changed(experiment, remat=one), devices)["total"] for one in policies()}
    current = bytes_per_device(experiment, devices)["total"]
    remat = [one for one in sorted(saved, key=saved.__getitem__, reverse=True) if saved[one] < current]
    parts = [
        n for n in divisors(rows) if n > experiment.where.micro_batches and n % experiment.where.micro_batches == 0
    ]
    shards = [n for n in divisors(devices) if n > experiment.where.mesh.fsdp]
    single = (
        [{"remat": one} for one in remat] + [{"micro_batches": n} for n in parts] + [{"fsdp": n} for n in shards]
    )
    both = [{"remat": one, "micro_batches": n} for one in remat[-1:] for n in parts]
    more = [{"fsdp": n, **other} for n in shards for other in [{"remat": one} for one in remat[-1:]] + both]
    for change in [*single, *both, *more]:
        if fits(experiment, devices, change, needed, available):
            return words(experiment, change)
    return ()


def _divides(experiment: Experiment, devices: int, change: Change) -> bool:
    """Whether mesh and micro-batches divide devices and rows."""
    where = changed(experiment, **change).where
    others = {field.name: getattr(where.mesh, field.name) for field in dataclasses.fields(where.mesh)}
    data = others.pop("data")
    inner = prod(others.values())
    if devices % inner or (data and data * inner != devices):
        return False
    shards = (data or devices // inner) * prod(others[axis] for axis in ("replica", "fsdp", "expert", "pipeline"))
    return (
        experiment.train.batch % (shards * where.micro_batches) == 0
        and experiment.model.embed % where.mesh.fsdp == 0
    )


def words(experiment: Experiment, change: Change) -> Words:
    """The command line of what a change changes; a mesh gets its `data` axis from what the others leave."""
    axes = {field.name for field in dataclasses.fields(experiment.where.mesh)}
    found: list[str] = []
    if experiment.where.mesh.data and axes & set(change):
        found += ["--where.mesh.data", "0"]
    for name, value in change.items():
        if getattr(experiment.where.mesh if name in axes else experiment.where, name) != value:
            found += [f"--where.mesh.{name}" if name in axes else f"--where.{name}", str(value)]
    return tuple(found)
