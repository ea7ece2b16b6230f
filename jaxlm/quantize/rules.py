"""Which weight has which format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Aware, Common, Format, Kept, Rounded, Rule
from jaxlm.layers.projection import Weight
from jaxlm.layers.weights import map_weights, matcher

Tree = TypeVar("Tree")


def place_of(name: str, rules: tuple[Rule, ...]) -> int | None:
    """The first rule that finds a name; None where none does. Raises UsageError for no regular expression."""
    found = (matcher(rule.targets, f"quantization.rules.{place}.targets") for place, rule in enumerate(rules))
    return next((place for place, one in enumerate(found) if one.search(name)), None)


def rule_of(name: str, quantization: Rounded | Aware) -> Rule | None:
    """The first rule that finds the name, its activations never `Common`; None where the weight is kept."""
    place = place_of(name, quantization.rules)
    if place is None or isinstance(quantization.rules[place].format, Kept):
        return None
    rule = quantization.rules[place]
    if isinstance(rule.activations, Common):
        return dataclasses.replace(rule, activations=quantization.activations)
    return rule


def format_of(name: str, quantization: Rounded | Aware) -> Format | None:
    """That of the first rule that finds the name; None where it is kept."""
    rule = rule_of(name, quantization)
    return None if rule is None else rule.format


def ruled(function: Callable[[str, Weight, Rule], Weight], model: Tree, quantization: Rounded | Aware) -> Tree:
    """The model with function(name, weight, rule) for each weight that a rule gives a format; see `rule_of`.

    Raises UsageError for a rule that is left no weight, and for what `function` raises, with the weight's name.
    """
    rules = quantization.rules
    names: list[str] = []
    used: set[int | None] = set()

    def one(name: str, weight: Weight) -> Weight:
        names.append(name)
        used.add(place_of(name, rules))
        rule = rule_of(name, quantization)
        try:
            return weight if rule is None else function(name, weight, rule)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None

    found = map_weights(one, model)
    idle = [place for place in range(len(rules)) if place not in used]
    if idle:
        raise UsageError(
            f"quantization.rules.{idle[0]}: {rules[idle[0]].targets!r} is found in the name of no weight that the "
            f"rules before it leave; names are like {', '.join(names[:1] + names[-2:])}"
        )
    return found
