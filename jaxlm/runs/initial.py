"""The run whose parameters an experiment starts from: what it gives, and its name by what they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jaxlm.config import codec
from jaxlm.config.data import kept
from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import OF_INITIAL, Experiment, OfInitial
from jaxlm.config.surgery import Cut, cut
from jaxlm.runs.digest import parameters
from jaxlm.runs.directory import read_experiment

ROLES = ("initial", "teacher")
"""Fields that name a run."""


def taken(experiment: Experiment) -> Experiment:
    """The experiment with what it asks for of the run that it starts from: model, tokenizer, quantization.

    Raises UsageError where it asks for something, and there is no such run.
    """
    run, _ = codec.named(experiment.initial)
    asked = [name for name in OF_INITIAL if isinstance(getattr(experiment, name), OfInitial)]
    if not run or not asked:
        return experiment
    _must_be("initial", run)
    theirs = read_experiment(run)
    tokenizer = kept(theirs.tokenizer, Path(run) / "tokenizer")
    given = {"model": theirs.model, "tokenizer": tokenizer, "quantization": theirs.quantization}
    return dataclasses.replace(experiment, **{name: given[name] for name in asked})


def settled(written: Experiment, changed: Experiment) -> Experiment:
    """A changed experiment whose model, where as `written` it is to be the initial one, is what `cut` keeps of it.

    Raises UsageError for what cannot be cut.
    """
    if changed.cut == Cut() or not isinstance(written.model, OfInitial) or isinstance(changed.model, OfInitial):
        return changed
    return dataclasses.replace(changed, model=cut(changed.model, changed.cut))


def missing(experiment: Experiment) -> dict[str, str]:
    """By role, the runs that an experiment begins from or learns of and that are not there."""
    found = {role: codec.named(getattr(experiment, role))[0] for role in ROLES}
    return {role: run for role, run in found.items() if run and not _is_there(run)}


def pinned(experiment: Experiment) -> Experiment:
    """The experiment with its initial parameters and its teacher's named by what they are, `RUN@DIGEST`: they are
    part of its hash.

    Raises UsageError where there is no such run, Failure as `parameters`.
    """
    for role in ROLES:
        run, digest = codec.named(getattr(experiment, role))
        if run and not digest:
            _must_be(role, run)
            experiment = dataclasses.replace(experiment, **{role: f"{run}@{parameters(run)}"})
    return experiment


def _must_be(role: str, run: str) -> None:
    if not _is_there(run):
        raise UsageError(f"{role} {run}: no such run or model; name another")


def _is_there(run: str) -> bool:
    return "://" in run or Path(run).exists()
