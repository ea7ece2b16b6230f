"""A study: one experiment, arms in which it differs, and seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxlm.config.experiment import Experiment


@dataclass(frozen=True)
class Arm:
    """One thing that is tried."""

    name: str
    changes: tuple[str, ...] = ()
    """Words of a command line that change the experiment: "model.position:alibi", "--train.batch=8"."""
    experiment: Experiment | None = None
    """An experiment to change, in place of the study's base: another file's, for one."""


@dataclass(frozen=True)
class Study:
    """Arms x seeds, of which the first arm is the baseline. In everything but `differs` all arms are the same."""

    name: str
    base: Experiment
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    """Each trains every arm once, from the same draws of initial parameters and on rows in the same order."""
    differs: tuple[str, ...]
    """Fields, or groups of fields, in which arms differ: "model.position", and derived ones: "parameters",
    "flops_per_token", "tokens", "flops". Arms that differ in any other are not run.
    """
    match: Literal["steps", "tokens", "flops", "parameters", "seconds"] = "tokens"
    """What all arms get as much of as the baseline; "seconds" are measured before."""
    solve: str = "train.steps"
    """The field, an integer, that is chosen for each arm so that it does."""
    multiple: int = 1
    """What the chosen number is a multiple of."""
    metric: str = "loss"
    """The held-out number, as runs record it after the last step, by which arms are compared; of tasks that runs
    are asked (`where.tasks`) "TASK/METRIC".
    """
    better: Literal["lower", "higher"] = "lower"
    """Which of two values of the metric is better."""
    obtain: str = ""
    """Where the files that the study reads and the runs that it begins from or learns of can be had, a command for
    one; told where one is missing.
    """
