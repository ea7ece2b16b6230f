"""Models named on a command line: runs, and what becomes one by being imported."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from jaxlm.cli import environment
from jaxlm.cli.experiment import take
from jaxlm.config.errors import UsageError


def run_of(name: str, command: list[str]) -> str:
    """A run for what is named: `name` itself, unless it is a model of others, which is imported into runs/ first.

    `command` is the whole command line, as `environment.prepare` takes it: to import, jax is needed. Raises
    UsageError where several processes would import it at once, and what `bring` raises.
    """
    if not is_model(Path(name)):
        return name
    from jaxlm.cluster.discovery import processes

    if (found := processes(os.environ)) and found[1] > 1:
        raise UsageError(f"{name} is a model: import it once, jaxlm import {name}, and give all processes that run")
    environment.prepare(command)

    from jaxlm.interop.imported import bring

    run = bring(Path(name))
    print(f"imported: {run}", file=sys.stderr)
    return run


def with_init(command: list[str]) -> list[str]:
    """The words after the first, in which the model of `--init`, if there is one, is a run."""
    given, rest = take(command[1:], ("init",))
    return [*rest, "--init", run_of(given["init"], command)] if given else rest


def is_model(path: Path) -> bool:
    """Whether it is a GGUF file, or a directory with the config.json of a model of others."""
    if path.is_file():
        return True
    try:
        return "model_type" in json.loads((path / "config.json").read_text())
    except (OSError, ValueError, TypeError):
        return False
