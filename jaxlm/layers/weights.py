"""Replacing the weights of a model: how adapters, quantization and merging are applied."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jaxtyping import Array, Float

from jaxlm.config.errors import UsageError
from jaxlm.config.suggest import nearest
from jaxlm.layers.projection import Weight
from jaxlm.parallel.layout import Axes

Tree = TypeVar("Tree")


class OfBase:
    """A weight made of another one, its `base`, whose axes and bias it has."""

    base: Weight

    @property
    def axes(self) -> Axes:
        """The base's."""
        return self.base.axes

    @property
    def inputs(self) -> int:
        """The base's."""
        return self.base.inputs

    @property
    def bias(self) -> Float[Array, "..."] | None:
        """The base's."""
        return self.base.bias


def is_weight(node: object) -> bool:
    """Whether a node of a model implements `Weight`."""
    return hasattr(node, "dot") and hasattr(node, "dense")


def map_weights(function: Callable[[str, Weight], Weight], model: Tree, name: str = "") -> Tree:
    """The same model with each outermost weight replaced by function(dotted name, weight)."""
    if is_weight(model):
        return function(name, model)
    prefix = f"{name}." if name else ""
    if isinstance(model, tuple):
        return tuple(map_weights(function, item, f"{prefix}{index}") for index, item in enumerate(model))
    if not dataclasses.is_dataclass(model):
        return model
    fields = [f.name for f in dataclasses.fields(model) if f.metadata.get("pytree_node", True)]
    new = {field: map_weights(function, getattr(model, field), prefix + field) for field in fields}
    return dataclasses.replace(model, **new)


def over_stacked(function: Callable, dims: int) -> Callable:
    """A function of one layer's arrays, as that of arrays with so many more dimensions in front."""
    for _ in range(dims):
        function = jax.vmap(function)
    return function


def in_blocks(name: str) -> bool:
    """The default choice of weights: every projection of the blocks."""
    return "blocks." in name or "encoder." in name


def weights_of(model: Any) -> dict[str, Weight]:
    """Each outermost weight by its dotted name."""
    found: dict[str, Weight] = {}

    def keep(name: str, weight: Weight) -> Weight:
        found[name] = weight
        return weight

    map_weights(keep, model)
    return found


def matcher(pattern: str, field: str) -> re.Pattern:
    """A regular expression of a config's `field`. Raises UsageError for one that is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{field}={pattern!r} is no regular expression: {error}") from None


def targets(pattern: str, model: Any, field: str) -> set[str]:
    """The names of the model's weights in which a regular expression is found; none for an empty pattern.

    Raises UsageError, which names the config's `field`, for a pattern that is none, or finds nothing.
    """
    if not pattern:
        return set()
    names, search = list(weights_of(model)), matcher(pattern, field).search
    found = {name for name in names if search(name)}
    if not found:
        near = "".join(f"\n  {name}" for name in nearest(pattern, names, 5))
        raise UsageError(f"{field}={pattern!r} is found in no weight's name of this model; nearest:{near}")
    return found
