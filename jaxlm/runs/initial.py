"""The run whose parameters an experiment starts from: what it gives, and its name by what they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jaxlm.config.codec import initial
from jaxlm.config.data import kept
from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment, OfInitial
from jaxlm.runs.digest import parameters
from jaxlm.runs.directory import read_experiment


def taken(experiment: Experiment) -> Experiment:
    """The experiment with the model and the tokenizer of the run that it starts from, where it asks for them.

    Raises UsageError where there is no such run.
    """
    run, _ = initial(experiment)
    if not run:
        return experiment
    if "://" not in run and not Path(run).exists():
        raise UsageError(f"initial {run}: no such run or model; name another")
    if isinstance(experiment.model, OfInitial):
        experiment = dataclasses.replace(experiment, model=read_experiment(run).model)
    if isinstance(experiment.tokenizer, OfInitial):
        tokenizer = kept(read_experiment(run).tokenizer, Path(run) / "tokenizer")
        experiment = dataclasses.replace(experiment, tokenizer=tokenizer)
    return experiment


def pinned(experiment: Experiment) -> Experiment:
    """The experiment with its initial parameters named by what they are, `RUN@DIGEST`: they are part of its hash.

    Raises Failure as `parameters`.
    """
    run, named = initial(experiment)
    if not run or named:
        return experiment
    return dataclasses.replace(experiment, initial=f"{run}@{parameters(run)}")
