"""From a study to the experiments it comes to, each of which is a run like any other."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from jaxlm.config.check import check
from jaxlm.config.codec import what_hash, whole_hash
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.overrides import apply
from jaxlm.config.study import Study
from jaxlm.runs.initial import pinned, settled, taken
from jaxlm.study.budget import Seconds, matched
from jaxlm.study.files import refuse_missing, to_be_had
from jaxlm.study.gate import DERIVED, refuse_hidden, refuse_incomparable

FOLLOWS = {
    "steps": frozenset(),
    "tokens": frozenset({"tokens"}),
    "flops": frozenset({"tokens"}),
    "parameters": frozenset({"parameters"}),
    "seconds": frozenset({"tokens"}),
}
"""Derived numbers that differ because of what is matched: within 1 %, or since steps are solved for."""


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    arm: str
    seed: int
    experiment: Experiment
    by_where: bool = False
    """Whether arms differ in where they are run, so that it decides which run this is."""

    @property
    def name(self) -> str:
        """`arm/seed`, as it is named on a command line."""
        return f"{self.arm}/{self.seed}"

    @property
    def folder(self) -> str:
        """Its run's directory below the study's; the hash sees to it that what is there is this very run."""
        of = whole_hash if self.by_where else what_hash
        return f"{self.arm}/seed{self.seed}-{of(self.experiment)[:8]}"


def arms_of(study: Study) -> dict[str, Experiment]:
    """The experiment of each arm as it is written, before budgets are made equal. Raises UsageError."""
    problems = [*_names(study), *_seeds(study)]
    if problems:
        raise UsageError(f"study {study.name!r}:\n" + "\n".join(f"  {one}" for one in problems))
    found = {}
    for arm in study.arms:
        own = arm.experiment or study.base
        begun = _begun(study, arm.name, own)
        try:
            experiment = settled(own, apply(begun, list(arm.changes)))
        except UsageError as error:
            raise UsageError(f"study {study.name}, arm {arm.name}: {error}") from None
        found[arm.name] = dataclasses.replace(experiment, name=study.name)
    return found


def _begun(study: Study, arm: str, experiment: Experiment) -> Experiment:
    try:
        return taken(experiment)
    except UsageError as error:
        raise UsageError(f"study {study.name}, arm {arm}: {error}{to_be_had(study)}") from None


def written(study: Study) -> dict[str, Experiment]:
    """The experiment of each arm before budgets are made equal.

    Raises UsageError for everything that is wrong whatever the budgets are: arms, seeds, hidden differences,
    experiments that do not fit together, and files and runs that are not there.
    """
    arms = arms_of(study)
    _check(study, arms)
    refuse_hidden(study, arms, DERIVED | {study.solve})
    refuse_incomparable(study, arms)
    refuse_missing(study, arms)
    return {name: _pinned(study, name, experiment) for name, experiment in arms.items()}


def plan(study: Study, seconds: Seconds | None = None) -> dict[str, Experiment]:
    """The experiment of each arm, with equal budgets, all seeds at the first.

    Raises UsageError for everything that can be wrong before anything is computed: as `written`, and for budgets
    that do not match.
    """
    arms = matched(study, written(study), seconds)
    refuse_hidden(study, arms, FOLLOWS[study.match] | {study.solve})
    _check(study, arms)
    return {name: _seeded(experiment, study.seeds[0]) for name, experiment in arms.items()}


def _pinned(study: Study, arm: str, experiment: Experiment) -> Experiment:
    try:
        return pinned(experiment)
    except Failure as error:
        raise UsageError(f"study {study.name}, arm {arm}: {error}") from None


def _check(study: Study, arms: dict[str, Experiment]) -> None:
    for name, experiment in arms.items():
        try:
            check(experiment)
        except UsageError as error:
            raise UsageError(f"study {study.name}, arm {name}: {error}") from None


def cells(study: Study, arms: dict[str, Experiment]) -> list[Cell]:
    """All runs, those of a seed together: a study that is stopped has whole pairs."""
    by_where = any(name.split(".")[0] == "where" for name in study.differs)
    return [
        Cell(name, seed, _seeded(experiment, seed), by_where)
        for seed in study.seeds
        for name, experiment in arms.items()
    ]


def _seeded(experiment: Experiment, seed: int) -> Experiment:
    return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, seed=seed))


def _names(study: Study) -> list[str]:
    names = [arm.name for arm in study.arms]
    problems = []
    if len(names) < 2:
        problems.append(f"it has {len(names)} arms: name a baseline and at least one arm to compare with it")
    problems += [f"two arms are called {name!r}" for name in dict.fromkeys(names) if names.count(name) > 1]
    problems += [
        f"{what} {name!r}: use letters, digits, dots, - and _, since it names a directory"
        for what, name in [("its name", study.name), *(("arm", name) for name in names)]
        if not re.fullmatch(r"[\w][\w.-]*", name)
    ]
    return problems


def _seeds(study: Study) -> list[str]:
    if not study.seeds:
        return ["it has no seeds: name some, seeds=(0, 1, 2, 3, 4); one alone is trained but not tested"]
    repeated = sorted({seed for seed in study.seeds if study.seeds.count(seed) > 1})
    negative = sorted({seed for seed in study.seeds if seed < 0})
    problems = [f"seed {seed} is named twice: the same run is no second observation" for seed in repeated]
    return problems + [f"seed {seed}: expected none below 0" for seed in negative]
