"""Which weight has which format."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Format, Kept, Rule
from jaxlm.layers.projection import Weight
from jaxlm.layers.weights import map_weights

Tree = TypeVar("Tree")


def ruled(function: Callable[[str, Weight, Format], Weight], model: Tree, rules: tuple[Rule, ...]) -> Tree:
    """The model with function(name, weight, format) for each weight that a rule gives a format.

    The first rule whose pattern is found in the name holds. Raises UsageError for a rule that is left no weight,
    and for what `function` raises, with the weight's name.
    """
    names: list[str] = []
    used = set()

    def one(name: str, weight: Weight) -> Weight:
        names.append(name)
        place = next((place for place, rule in enumerate(rules) if re.search(rule.targets, name)), None)
        if place is None:
            return weight
        used.add(place)
        if isinstance(format := rules[place].format, Kept):
            return weight
        try:
            return function(name, weight, format)
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
