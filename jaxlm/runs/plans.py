"""Plans that are kept beside an experiment's file: `plans/<experiment>-<chip>-<devices>.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jaxlm.config.codec import what_hash
from jaxlm.config.errors import Failure
from jaxlm.config.experiment import Experiment
from jaxlm.runs.files import explained, write_atomically

Plan = dict[str, Any]
"""As `jaxlm.planning.kept` makes it."""
DIRECTORY = "plans"
"""Name of the directory beside the experiment's file."""
NEEDED = {
    "what": str,
    "topology": str,
    "mesh": dict,
    "micro_batches": int,
    "remat": str,
    "flags": list,
    "step ms": int | float,
    "mfu": int | float,
    "peak GiB": int | float,
}
"""What a run reads of a plan."""


def path_of(directory: Path, experiment: str, chip: str, devices: int) -> Path:
    """Where the plan of an experiment on so many devices lies."""
    return directory / f"{experiment}-{chip}-{devices}.json"


def write(plan: Plan, directory: Path, name: str = "") -> Path:
    """Keeps a plan, by a name or else where `find` looks. Raises Failure where it cannot be written."""
    usual = path_of(directory, plan["experiment"], plan["chip"], plan["devices"])
    path = usual.with_name(f"{name}.json") if name else usual
    with explained(directory):
        directory.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(plan, indent=1) + "\n")
    return path


def read(path: Path) -> Plan:
    """A kept plan. Raises Failure if it is damaged."""
    with explained(path, "read"):
        text = path.read_bytes()
    try:
        plan = json.loads(text)
    except ValueError:
        plan = None
    if not isinstance(plan, dict):
        raise Failure(f"{path} is no plan: jaxlm plan --save makes it again")
    for name, kind in NEEDED.items():
        value = plan.get(name)
        if not isinstance(value, kind) or (name == "step ms" and value <= 0):
            raise Failure(f"{path} is damaged, {name!r} is {value!r}: jaxlm plan --save makes it again")
    return plan


def find(directory: Path, experiment: Experiment, chip: str, devices: int) -> Plan | None:
    """The kept plan of what an experiment computes on so many devices. Raises Failure if it is damaged."""
    path = path_of(directory, experiment.name, chip, devices)
    with explained(path, "read"):
        if not path.exists():
            return None
    plan = read(path)
    return plan if plan["what"] == what_hash(experiment)[:16] else None
