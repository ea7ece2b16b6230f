"""Replacing the weights of a model: how adapters, quantization and merging are applied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from jaxlm.layers.projection import Weight

Tree = TypeVar("Tree")


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


def in_blocks(name: str) -> bool:
    """The default choice of weights: every projection of the blocks."""
    return "blocks." in name or "encoder." in name
