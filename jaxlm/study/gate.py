"""What arms differ in, and whether they may: an arm with a difference that nobody named is not run."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlm.config.codec import ABSENT, flat, named, to_json
from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.flops import flops_of, parameters
from jaxlm.config.model import Model
from jaxlm.config.objective import asks_teacher
from jaxlm.config.study import Study
from jaxlm.config.suggest import show
from jaxlm.runs.directory import read_experiment
from jaxlm.runs.initial import missing

Difference = dict[str, Any]
"""Value in each arm, by the arm's name."""
BY_TOKEN = ("loss", "cross_entropy", "accuracy")
DERIVED = frozenset({"parameters", "flops_per_token", "tokens", "flops"})


def derived(experiment: Experiment) -> dict[str, float]:
    """What an experiment's fields come to: `parameters`, training `flops_per_token` (with the teacher's, where its
    run is there), `tokens` and `flops`.
    """
    train = experiment.train
    tokens = train.steps * train.batch * train.length
    each = flops_of(experiment, _teacher(experiment))["training"]
    return {
        "parameters": parameters(experiment.model)["total"],
        "flops_per_token": each,
        "tokens": tokens,
        "flops": each * tokens,
    }


def _teacher(experiment: Experiment) -> Model | None:
    run, _ = named(experiment.teacher)
    if not run or not asks_teacher(experiment.objective) or "teacher" in missing(experiment):
        return None
    return read_experiment(run).model


def resolved(experiment: Experiment) -> dict[str, Any]:
    """Every field by its path, and what is derived of them; the experiment's name is no part of it."""
    return flat(to_json(dataclasses.replace(experiment, name=""))) | derived(experiment)


def differences(arms: dict[str, Experiment]) -> dict[str, Difference]:
    """By path, fields and derived numbers in which not all arms are the same; ABSENT where an arm has none."""
    found = {name: resolved(experiment) for name, experiment in arms.items()}
    paths = dict.fromkeys(path for fields in found.values() for path in fields)
    paths = sorted(paths, key=lambda path: path in DERIVED)
    rows = {path: {name: fields.get(path, ABSENT) for name, fields in found.items()} for path in paths}
    first = next(iter(arms))
    return {path: row for path, row in rows.items() if any(row[name] != row[first] for name in row)}


def refuse_hidden(study: Study, arms: dict[str, Experiment], follows: frozenset[str]) -> None:
    """Raises UsageError for arms that are the same, for a difference that the study does not name, and for a field
    it names in which arms do not differ.

    `follows` are paths that may differ because budgets are made equal; total FLOPs, a product of two others, may.
    """
    found = differences(arms)
    problems = [*_alike(arms), *_hidden(study, found, follows | {"flops"}), *_idle(study, found)]
    if problems:
        raise UsageError(f"study {study.name}:\n" + "\n".join(problems))


def refuse_incomparable(study: Study, arms: dict[str, Experiment]) -> None:
    """Raises UsageError for a metric that is not the same measure in all arms, or whose better side is the other.

    The objective's `loss` has the terms that it trains on; what is counted by token depends on the tokenizer.
    """
    found, metric = differences(arms), study.metric
    rooms = {path.split(".")[0] for path in found}
    said = ""
    if metric == "loss" and (
        "objective" in rooms or any("balance" in path or "router_z" in path for path in found)
    ):
        said = "is what each arm trains on, and the arms' objectives differ: take cross_entropy or bits_per_byte"
    elif metric in BY_TOKEN and "tokenizer" in rooms:
        said = "is counted by token, and the arms' tokenizers differ: take bits_per_byte"
    elif "accuracy" in metric and study.better == "lower":
        said = "is better where it is higher: set better = 'higher'"
    if said:
        raise UsageError(f"study {study.name}: metric {metric!r} {said}")


def listed(path: str, names: tuple[str, ...]) -> bool:
    """Whether a path is one of the names, or lies below one."""
    return any(path == name or path.startswith(f"{name}.") for name in names)


def _alike(arms: dict[str, Experiment]) -> list[str]:
    seen: dict[str, str] = {}
    problems = []
    for name, experiment in arms.items():
        fields = repr(sorted(resolved(experiment).items()))
        if fields in seen:
            problems.append(f"  arm {name} varies nothing: it is the same as arm {seen[fields]}; give it a change")
        seen.setdefault(fields, name)
    return problems


def _hidden(study: Study, found: dict[str, Difference], follows: frozenset[str]) -> list[str]:
    problems = []
    for path, row in found.items():
        if listed(path, study.differs) or path in follows:
            continue
        values = ", ".join(f"{name} {_shown(value)}" for name, value in row.items())
        problems.append(f"  arms differ in {path}: {values}; make them equal, or add {path!r} to differs")
    return problems


def _idle(study: Study, found: dict[str, Difference]) -> list[str]:
    return [
        f"  differs names {name!r}, in which the arms are the same: take it out, or give an arm the change"
        for name in study.differs
        if name not in DERIVED | {study.solve} and not any(listed(path, (name,)) for path in found)
    ]


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else show(value)
