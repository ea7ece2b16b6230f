"""From a model to the sharding of each of its leaves."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jaxtyping import PyTree

from jaxlm.parallel.layout import Axes, Layout


def logical_axes(model: PyTree) -> PyTree:
    """The same pytree with each leaf's logical axes (a `Named`) in place of the array."""
    own: dict[str, Axes] = model.leaf_axes() if hasattr(model, "leaf_axes") else {}
    if dataclasses.is_dataclass(model):
        fields = [f.name for f in dataclasses.fields(model) if f.metadata.get("pytree_node", True)]
        values = {name: getattr(model, name) for name in fields}
        named = {name: Named(own[name]) for name in own if values[name] is not None}
        rest = {name: logical_axes(value) for name, value in values.items() if name not in named}
        return dataclasses.replace(model, **named, **rest)
    if isinstance(model, tuple):
        return tuple(logical_axes(item) for item in model)
    if model is None:
        return None
    raise TypeError(f"{type(model).__name__} has a leaf without logical axes: name them in leaf_axes()")


@dataclasses.dataclass(frozen=True)
class Named:
    """Logical axes as a leaf of a pytree."""

    axes: Axes


def shardings(model: PyTree, layout: Layout) -> PyTree:
    """The same pytree with each leaf's NamedSharding; `model` may be abstract (`jax.eval_shape`)."""

    def place(named: Any, leaf: Any) -> jax.sharding.NamedSharding:
        return layout.sharding(named.axes, leaf.shape)

    return jax.tree.map(place, logical_axes(model), model)
