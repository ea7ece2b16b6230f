"""Equal budgets: a field of each arm is solved for, so that all get as much of something as the baseline."""

from __future__ import annotations

from collections.abc import Callable

from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.overrides import replace_at
from jaxlm.config.paths import leaves
from jaxlm.config.study import Study
from jaxlm.study.gate import derived

WITHIN = 0.01
"""Share of the baseline's budget by which an arm's may be off."""
LARGEST = 2**40

Seconds = dict[str, float]
"""Of one training step, by arm, as they were measured."""


def amount(study: Study, arm: str, experiment: Experiment, seconds: Seconds) -> float:
    """How much an arm gets of what is matched. Raises UsageError where its seconds were not measured."""
    match study.match:
        case "steps":
            return experiment.train.steps
        case "seconds":
            if arm not in seconds:
                raise UsageError(f"study {study.name}: the seconds of a step of arm {arm} were not measured")
            return experiment.train.steps * seconds[arm]
        case name:
            return derived(experiment)[name]


def matched(study: Study, arms: dict[str, Experiment], seconds: Seconds | None = None) -> dict[str, Experiment]:
    """The arms with equal budgets: those whose amount is within 1 % of the first arm's stay as they are.

    Raises UsageError for a field to solve that is no integer of the arm or does not change the amount, and where
    no value of it comes within 1 %.
    """
    seconds = seconds or {}
    first, *others = arms
    target = amount(study, first, arms[first], seconds)
    solved = {first: arms[first]}
    for name in others:
        experiment = arms[name]
        if _off(amount(study, name, experiment, seconds), target) > WITHIN:
            experiment = _solve(study, name, experiment, target, seconds)
        solved[name] = experiment
    return solved


def _off(found: float, target: float) -> float:
    return abs(found / target - 1)


def _solve(study: Study, arm: str, experiment: Experiment, target: float, seconds: Seconds) -> Experiment:
    """The experiment with the multiple at which its amount is nearest to the target."""
    field = leaves(experiment).get(study.solve)
    if field is None or type(field.value) is not int:
        raise UsageError(
            f"study {study.name}: solve = {study.solve!r} is no integer field of arm {arm}; name one that changes "
            f"its {study.match}"
        )

    def at(times: int) -> Experiment:
        return replace_at(experiment, study.solve, times * study.multiple)

    def reached(times: int) -> float:
        return amount(study, arm, at(times), seconds)

    low = _last_below(reached, target)
    times = min((max(low, 1), low + 1), key=lambda times: _off(reached(times), target))
    if reached(times) == reached(2 * times):
        raise UsageError(f"study {study.name}: {study.match} do not depend on solve = {study.solve!r}")
    if (off := _off(reached(times), target)) > WITHIN:
        raise UsageError(
            f"study {study.name}: arm {arm} cannot get the baseline's {target:,.6g} {study.match}: nearest is "
            f"{study.solve} = {times * study.multiple} with {reached(times):,.6g}, {off:.1%} off; solve another "
            "field, or make the baseline larger"
        )
    return at(times)


def _last_below(reached: Callable[[int], float], target: float) -> int:
    """The largest number whose amount is not above the target, 0 if there is none; amounts grow with numbers."""
    high = 1
    while reached(high) <= target and high < LARGEST:
        if reached(high) == reached(2 * high):
            return high
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reached(middle) <= target else (low, middle)
    return low
