"""What of a plan is kept beside its experiment: how it was made, where it runs, and the figures to hold it to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def kept(plan: Mapping[str, Any], command: Sequence[str]) -> dict[str, Any]:
    """The part of a plan (`explain.Plan.json()`) that is kept; `command` makes it again.

    `jaxlm.runs.plans` writes and finds these.
    """
    estimate, figures = plan["estimate"], plan["figures"]
    return {
        "command": list(command),
        "experiment": plan["experiment"],
        "what": plan["what"],
        "topology": plan["topology"],
        "chip": re.sub(r"^\d+x", "", plan["topology"].partition(":")[0]),
        "devices": plan["devices"],
        "mesh": plan["mesh"],
        "batch": list(plan["batch"]),
        "micro_batches": plan["micro_batches"],
        "remat": plan["remat"],
        "flags": list(plan["flags"]),
        "step ms": _digits(1e3 * estimate["step"]),
        "compute ms": _digits(1e3 * estimate["compute"]),
        "attention ms": _digits(1e3 * estimate["attention"]),
        "experts ms": _digits(1e3 * estimate["experts"]),
        "exposed ms": _digits(1e3 * estimate["exposed"]),
        "mfu": _digits(100 * estimate["mfu"]),
        "peak GiB": _gib(plan["peak"]),
        "memory GiB": _gib(plan["available"]),
        "exposed GiB": _gib(figures["exposed bytes"]),
        "gathered GiB": _gib(figures["gathered bytes"]),
        "all-reduced in the layer loop GiB": _gib(figures["all-reduced bytes in the layer loop"]),
        "untimed": plan["untimed"],
        "compile s": _digits(plan["compile_seconds"]),
        "process GiB": _gib(plan["process_bytes"]),
        "chip-hours": _digits(estimate["chip_hours"]),
        "calibration": estimate["calibration"],
        "versions": plan["versions"],
    }


def _gib(count: float) -> float:
    return _digits(count / 2**30)


def _digits(value: float) -> float:
    """Five digits: what is small is compared, too."""
    return float(f"{value:.5g}")
