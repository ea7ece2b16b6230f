"""A run that takes up where another one ended: with its parameters, optimizer and place in the data.

An experiment decides every step, so that two which differ only in what comes later have the same steps until then.
The state of the one is the other's own: what follows is, bit for bit, as if it had taken all steps itself.
"""

from __future__ import annotations

import os

import jax
import numpy as np

from jaxlm.config import Experiment
from jaxlm.config.codec import difference, sources
from jaxlm.config.errors import Failure, UsageError
from jaxlm.layers.names import listed
from jaxlm.runs.directory import read_experiment, read_sources
from jaxlm.train import optimizers
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.initial import restored
from jaxlm.train.setup import Setup
from jaxlm.train.state import State

LATER = ("name", "train.steps", "optimizer.schedule", "samples", "where")
"""What may differ: learning rates are compared step by step."""


def refuse_other(experiment: Experiment, run_dir: str) -> None:
    """Raises UsageError for a run whose steps are not this experiment's own, or that has gone further than it;
    Failure for one without a checkpoint.
    """
    theirs = read_experiment(run_dir)
    problems = [
        f"{path}: {there!r} there, {here!r} here"
        for path, there, here in difference(theirs, experiment)
        if not any(path == one or path.startswith(f"{one}.") for one in LATER)
    ]
    if read_sources(run_dir) != sources(experiment):
        problems.append("the source of the objective has changed")
    if problems:
        raise UsageError(f"--after {run_dir}: its steps are those of another experiment:\n" + listed(problems))
    with _checkpoints(run_dir) as checkpoints:
        step = max(checkpoints.steps(), default=None)
    if step is None:
        raise Failure(f"{run_dir} has no checkpoint yet: let it run until its first, or name another run")
    if step >= experiment.train.steps:
        raise UsageError(f"--after {run_dir}: it has taken {step} steps, and here are {experiment.train.steps}")
    ours, its = (rates(one, step) for one in (experiment, theirs))
    if other := np.flatnonzero(ours != its).tolist():
        at = other[0]
        raise UsageError(
            f"--after {run_dir}: the learning rate of step {at + 1} was {its[at]:.4g} there and is {ours[at]:.4g} "
            f"here: up to step {step} both must be the same"
        )


def state_after(setup: Setup, run_dir: str, rows: str) -> tuple[int, State]:
    """(Steps taken, state) of the last checkpoint of a run that `refuse_other` has let pass.

    `rows` is the fingerprint of this experiment's rows. Raises UsageError where the run was trained on others.
    """
    with _checkpoints(run_dir) as checkpoints:
        step, state, data = restored(setup, checkpoints)
    if data["rows"] != rows:
        raise UsageError(f"--after {run_dir}: it was trained on other rows")
    return step, state


def _checkpoints(run_dir: str) -> Checkpoints:
    return Checkpoints(os.path.join(run_dir, "checkpoints"), read_only=True)


def rates(experiment: Experiment, steps: int) -> np.ndarray:
    """The learning rate of each of the first steps."""
    rate = optimizers.learning_rate(experiment.optimizer, experiment.train.steps)
    return np.asarray(jax.vmap(rate)(np.arange(steps)))
