"""One name for many fingerprints, and the name of a run's parameters as it stands in its checkpoints."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from etils import epath

from jaxlm.config.errors import Failure
from jaxlm.runs.files import explained

META = ("meta", "metadata")
"""Where a checkpoint keeps the names and fingerprints of its arrays."""


def digest(fingerprints: dict[str, str]) -> str:
    """One fingerprint, 16 hex digits, of all names and their fingerprints."""
    lines = "\n".join(f"{name} {value}" for name, value in sorted(fingerprints.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def part(fingerprints: dict[str, str], field: str) -> dict[str, str]:
    """The arrays below one field of the state, by their names there."""
    return {
        name.removeprefix(f"{field}."): value
        for name, value in fingerprints.items()
        if name.startswith(f"{field}.")
    }


def parameters(run_dir: Any) -> str:
    """Digest of the parameters in a run's newest checkpoint, read without jax.

    It names them; whether the arrays are what it says is found out by who reads them. Raises Failure where there
    is no checkpoint.
    """
    path = epath.Path(run_dir)
    folder = path / "checkpoints"
    with explained(path, "read"):
        steps = [int(one.name) for one in folder.iterdir() if one.name.isdigit()] if folder.exists() else []
        for step in sorted(steps, reverse=True):
            try:
                meta = json.loads(folder.joinpath(str(step), *META).read_text())
                return digest(part(meta["fingerprint"], "model"))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # damaged: the restore, which goes back as far, says so
    raise Failure(f"{path} has no checkpoint yet: let it run until its first, or name another run")
