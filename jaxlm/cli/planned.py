"""A plan as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxlm.cli.text import bold, count, duration, size, table

if TYPE_CHECKING:
    from jaxlm.planning.explain import Plan


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
    rows = [(name, size(value), share(value, plan.available)) for name, value in plan.memory.items()]
    rows += [("at most at once", size(plan.peak), share(plan.peak, plan.available))]
    rows += [("offloaded to the host", size(plan.host), "")] if plan.host else []
    rows += [("a device has", size(plan.available), "")]
    return table(("memory of a device", "bytes", "share"), rows)


def share(value: float, of: float) -> str:
    """A percentage."""
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
            milliseconds(one.seconds),
        )
        for one in plan.traffic
        if one.bytes >= 2**20
    ]
    head = ("collective", "along", "where", "", "number", "bytes/step", "ms")
    return table(head, rows) if rows else "no collective of a MiB a step"


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds with three digits."""
    return _digits(1e3 * seconds)


def _digits(value: float) -> str:
    """Three digits, or all of a large number's; next to nothing is 0."""
    return f"{value:,.0f}" if value >= 100 or value < 1e-3 else f"{value:.3g}"


def _time(plan: Plan) -> str:
    found = plan.estimate
    rows = [
        ("model FLOPs", count(found.model_flops)),
        ("FLOPs of the step's products", count(found.hardware_flops)),
        ("compute, ms", milliseconds(found.compute)),
        ("waiting for collectives, ms", milliseconds(found.exposed)),
        ("step, ms", milliseconds(found.step)),
        ("MFU", share(found.mfu, 1)),
        ("HFU", share(found.hfu, 1)),
    ]
    kernels = {"experts' kernels": found.experts, "attention kernels": found.attention}
    for name, seconds in kernels.items():
        if seconds:
            rows.insert(3, (f"{name}, pessimistic, ms", milliseconds(seconds)))
    rows += [(f"not in the estimate: {name}, calls", f"{times}") for name, times in plan.untimed.items()]
    rows += [
        ("collectives behind compute, ms", milliseconds(found.hidden)),
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
