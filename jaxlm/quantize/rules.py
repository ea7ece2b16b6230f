"""Which weight has which format."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Format, Kept, Rule
from jaxlm.layers.projection import Weight
from jaxlm.layers.weights import map_weights, matcher

Tree = TypeVar("Tree")


def place_of(name: str, rules: tuple[Rule, ...]) -> int | None:
    """The first rule that finds a name; None where none does. Raises UsageError for no regular expression."""
    found = (matcher(rule.targets, f"quantization.rules.{place}.targets") for place, rule in enumerate(rules))
    return next((place for place, one in enumerate(found) if one.search(name)), None)


def format_of(name: str, rules: tuple[Rule, ...]) -> Format | None:
    """That of the first rule that finds the name; None where it is kept, or no rule finds it."""
    place = place_of(name, rules)
    return None if place is None or isinstance(rules[place].format, Kept) else rules[place].format


def ruled(function: Callable[[str, Weight, Format], Weight], model: Tree, rules: tuple[Rule, ...]) -> Tree:
    """The model with function(name, weight, format) for each weight that a rule gives a format.

    The first rule whose pattern is found in the name holds. Raises UsageError for a rule that is left no weight,
    and for what `function` raises, with the weight's name.
    """
    names: list[str] = []
    used: set[int | None] = set()

    def one(name: str, weight: Weight) -> Weight:
        names.append(name)
        used.add(place_of(name, rules))
        format = format_of(name, rules)
        try:
            return weight if format is None else function(name, weight, format)
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
