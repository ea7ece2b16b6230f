"""usage: jaxlm plan EXPERIMENT --topology v5p:4x4x4 [--flags async_gathers] [--price USD] [--json FILE]

Compiles the real training step for chips that are not there and says whether it fits, what binds it, how long
a step will take by estimate, and what to try. Touches no accelerator; needs the extra `tpu` or `cuda`.

  --topology v5p:4x4x4     chips and their shape: v5e:16x16, h100:8, ... (an unknown one lists all)
  --flags A,B              sets of compiler flags by name (an unknown one lists those of the chip)
  --price USD              price of a chip for an hour, for the cost of the run
  --json FILE              write the plan as data
  --hlo FILE               write the program that was compiled
  --where.mesh.fsdp 16     set a field, as for jaxlm run
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.cli import experiment
from jaxlm.cli.text import bold, count, duration, size, table
from jaxlm.config.errors import Failure, UsageError
from jaxlm.planning import flags, topology

if TYPE_CHECKING:
    from jaxlm.planning.explain import Plan

OPTIONS = ("topology", "flags", "price", "json", "hlo")
USAGE = "jaxlm plan EXPERIMENT --topology v5p:4x4x4"


def main(argv: list[str]) -> int:
    """Compiles and prints the plan. Returns the exit code."""
    request = experiment.parse(argv, OPTIONS, USAGE)
    if request.help:
        print(experiment.fields(request.experiment))
        return 0
    given = request.options
    if "topology" not in given:
        raise UsageError(f"which chips? {USAGE}")
    where = topology.parse(given["topology"])
    names = [name for name in given.get("flags", "").split(",") if name]
    initial = flags.choose(names, where.chip, "init")
    price = _price(given.get("price"))
    topology.check_installed(where)
    topology.environment(where, " ".join(f"--{flag}={value}" for flag, value in initial.items()))

    from jaxlm.planning.explain import make_plan

    plan, text = make_plan(request.experiment, where, names, price)
    print("\n\n".join(part for part in pages(plan) if part))
    _write(given.get("json"), json.dumps(plan.json(), indent=1) + "\n")
    _write(given.get("hlo"), text)
    return 0


def _price(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < float("inf"):
        raise UsageError(f"--price {text}: expected USD an hour and chip")
    return price


def _write(path: str | None, content: str) -> None:
    if path is None:
        return
    try:
        Path(path).write_text(content)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from None


def pages(plan: Plan) -> list[str]:
    """The parts of the plan as they are printed."""
    return [
        _heading(plan),
        _memory(plan),
        _buffers(plan),
        _traffic(plan),
        _time(plan),
        _findings(plan),
        plan.estimate.calibration,
    ]


def _heading(plan: Plan) -> str:
    mesh = " x ".join(f"{axis} {n}" for axis, n in plan.mesh.items()) or "one device"
    rows, length = plan.batch
    parts = f" in {plan.micro_batches} micro-batches" if plan.micro_batches > 1 else ""
    return (
        f"{bold(plan.experiment)} on {bold(plan.topology)}  what {plan.what}\n"
        f"{plan.devices} devices as {mesh}; {rows} rows x {length} tokens{parts}; "
        f"remat {plan.remat}; flags {', '.join(plan.flags) or 'default'}\n"
        f"traced in {duration(plan.lower_seconds)}, compiled in {duration(plan.compile_seconds)} "
        f"with {size(plan.process_bytes)}"
    )


def _memory(plan: Plan) -> str:
    rows = [(name, size(value), _share(value, plan.available)) for name, value in plan.memory.items()]
    rows += [("at most at once", size(plan.peak), _share(plan.peak, plan.available))]
    rows += [("offloaded to the host", size(plan.host), "")] if plan.host else []
    rows += [("a device has", size(plan.available), "")]
    return table(("memory of a device", "bytes", "share"), rows)


def _share(value: float, of: float) -> str:
    return f"{100 * value / of:.1f} %"


def _buffers(plan: Plan) -> str:
    rows = [(one.type, size(one.bytes), one.count, one.scope or "-") for one in plan.buffers]
    return table(("largest arrays", "bytes", "number", "from"), rows)


def _traffic(plan: Plan) -> str:
    rows = [
        (
            one.kind,
            one.axes,
            one.where,
            "hidden" if one.hidden else "exposed",
            one.instructions,
            size(one.bytes),
            _milliseconds(one.seconds),
        )
        for one in plan.traffic
        if one.bytes >= 2**20
    ]
    head = ("collective", "along", "where", "", "number", "bytes/step", "ms")
    return table(head, rows) if rows else "no collective of a MiB a step"


def _milliseconds(seconds: float) -> str:
    return _digits(1e3 * seconds)


def _digits(value: float) -> str:
    """Three digits, or all of a large number's; next to nothing is 0."""
    return f"{value:,.0f}" if value >= 100 or value < 1e-3 else f"{value:.3g}"


def _time(plan: Plan) -> str:
    found = plan.estimate
    rows = [
        ("model FLOPs", count(found.model_flops)),
        ("FLOPs of the step's products", count(found.hardware_flops)),
        ("compute, ms", _milliseconds(found.compute)),
        ("waiting for collectives, ms", _milliseconds(found.exposed)),
        ("step, ms", _milliseconds(found.step)),
        ("MFU", _share(found.mfu, 1)),
        ("HFU", _share(found.hfu, 1)),
    ]
    if found.attention:
        rows.insert(3, ("attention kernels, pessimistic, ms", _milliseconds(found.attention)))
    if found.attention and found.step_counted is not None:
        rows.insert(4, ("attention kernels, by counted bundles, ms", _milliseconds(found.attention_counted)))
        rows.insert(-1, ("MFU with counted bundles", _share(found.mfu_counted, 1)))
    rows += [(f"not in the estimate: {name}, calls", f"{times}") for name, times in plan.untimed.items()]
    rows += [
        ("collectives behind compute, ms", _milliseconds(found.hidden)),
        ("tokens a day", count(found.tokens_per_day)),
        ("chip-hours of the run", _digits(found.chip_hours)),
    ]
    rows += [("cost of the run, USD", _digits(found.cost))] if found.cost is not None else []
    return table(("estimate", "a step"), rows)


def _findings(plan: Plan) -> str:
    if not plan.findings:
        return ""
    lines = []
    for one in plan.findings:
        lines.append(f"{bold(one.rule)}: {one.text}")
        lines += [f"  try {' '.join(fix)}" for fix in one.fixes]
    return "\n".join(lines)
