"""usage: jaxlm show EXPERIMENT [--devices N] [OVERRIDES]

What an experiment comes to: its config, parameters, FLOPs and memory, in closed form. Touches no accelerator.

  --init MODEL_OR_RUN      what it starts from, as for jaxlm run
  --devices N              devices to spread over (default: as many as where.mesh names)
  --train.steps 50         set a field, as for jaxlm run; what differs from the file is marked
"""

from __future__ import annotations

import dataclasses
from math import prod

from jaxlm.cli import experiment, models
from jaxlm.cli.text import bold, count, size, table
from jaxlm.config.codec import what_hash, whole_hash
from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.flops import active_parameters, flops_of, parameters
from jaxlm.config.memory import bytes_per_device

OPTIONS = ("init", "devices")


def main(argv: list[str]) -> int:
    """Prints the page. Returns the exit code."""
    request = experiment.parse(models.with_init(["show", *argv]), OPTIONS, "jaxlm show EXPERIMENT")
    if request.help:
        print(experiment.fields(request.experiment))
        return 0
    devices = _devices(request.options.get("devices"), request.experiment)
    tree = request.experiment
    parts = [
        _heading(tree),
        _config(request.base, tree),
        _parameters(tree),
        _flops(tree),
        _memory(tree, devices),
    ]
    print("\n\n".join(parts))
    return 0


def _devices(text: str | None, tree: Experiment) -> int:
    mesh = tree.where.mesh
    if text is None:
        return prod(max(size, 1) for size in dataclasses.asdict(mesh).values())
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--devices {text}: expected a number of devices")
    return int(text)


def _heading(tree: Experiment) -> str:
    train = tree.train
    tokens = train.steps * train.batch * train.length
    product = f"{train.steps} steps x {train.batch} rows x {train.length} tokens"
    return (
        f"{bold(tree.name)}  what {what_hash(tree)[:16]}  whole {whole_hash(tree)[:16]}\n"
        f"{count(tokens)} tokens = {product}"
    )


def _config(base: Experiment, tree: Experiment) -> str:
    """The tree, indented; a value that is not the file's shows what the file has."""
    before, lines, groups = experiment.values(base), [], set()
    for path, value in experiment.values(tree).items():
        *parents, name = path.split(".")
        for depth, parent in enumerate(parents):
            if (group := tuple(parents[: depth + 1])) not in groups:
                groups.add(group)
                lines.append(("  " * depth + parent, "", ""))
        groups.add((*parents, name))
        mark = "" if before.get(path, value) == value else f"(file: {before[path]})"
        lines.append(("  " * len(parents) + name, value, mark))
    width = max(len(label) for label, _, _ in lines) + 2
    return "\n".join(f"{label:{width}}{value}  {mark}".rstrip() for label, value, mark in lines)


def _parameters(tree: Experiment) -> str:
    found = parameters(tree.model)
    rows = [(name, f"{value:,}", f"{100 * value / found['total']:.1f} %") for name, value in found.items()]
    if (active := active_parameters(tree.model)) < found["total"]:
        rows.append(("met by a token", f"{active:,}", f"{100 * active / found['total']:.1f} %"))
    return table(("parameters", "number", "share"), rows)


def _flops(tree: Experiment) -> str:
    found = flops_of(tree)
    rows = [(name, count(value)) for name, value in found.items()]
    tokens = tree.train.steps * tree.train.batch * tree.train.length
    total = found["training"] * tokens
    rows.append(("whole run", f"{total:.3g}"))
    return table(("FLOPs per token", "number"), rows)


def _memory(tree: Experiment, devices: int) -> str:
    found = bytes_per_device(tree, devices)
    head = f"bytes per device ({devices} device{'s' if devices > 1 else ''})"
    return table((head, "size"), [(name, size(value)) for name, value in found.items() if value])
