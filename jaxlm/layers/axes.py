"""From a model to the sharding of each of its leaves."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxlm.parallel.layout import Axes, Layout

MAJOR = ("heads", "mlp", "vocab")
"""First dimensions of the matrices that do not begin with the features."""


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
    if isinstance(model, dict):
        return {name: logical_axes(value) for name, value in model.items()}
    if model is None:
        return None
    raise TypeError(f"{type(model).__name__} has a leaf without logical axes: name them in leaf_axes()")


@dataclasses.dataclass(frozen=True)
class Named:
    """Logical axes as a leaf of a pytree."""

    axes: Axes


def shardings(model: PyTree, layout: Layout) -> PyTree:
    """The same pytree with each leaf's NamedSharding in storage; `model` may be abstract (`jax.eval_shape`)."""
    return jax.tree.map(lambda spec: NamedSharding(layout.mesh, spec), specs(model, layout), is_leaf=_is_spec)


def specs(model: PyTree, layout: Layout) -> PyTree:
    """The same pytree with each leaf's PartitionSpec in storage."""

    def place(named: Named, leaf: Any) -> PartitionSpec:
        return layout.stored_spec(named.axes, leaf.shape)

    return jax.tree.map(place, logical_axes(model), model)


def batch_specs(batch: PyTree, layout: Layout) -> PyTree:
    """The PartitionSpec of each array of a batch: rows, and of two dimensions positions."""
    return jax.tree.map(lambda x: layout.spec(("row", "tokens")[: x.ndim], x.shape[: min(x.ndim, 2)]), batch)


def fitted(layout: Layout, model: PyTree) -> Layout:
    """The layout that stores each matrix of this model along its first dimension that divides.

    A lone key and value head (multi-query attention) is whole on every device, whatever heads its queries have.
    """
    sizes: dict[str, set[int]] = {}
    for named, leaf in zip(jax.tree.leaves(logical_axes(model)), jax.tree.leaves(model), strict=True):
        for axis, size in zip(named.axes, leaf.shape[leaf.ndim - len(named.axes) :], strict=True):
            sizes.setdefault(axis, set()).add(size)
    shards = {axis: layout.size(layout.storage) * layout.shards(axis) for axis in MAJOR}
    divides = tuple(axis for axis in MAJOR if all(size % shards[axis] == 0 for size in sizes.get(axis, ())))
    whole = ("kv_heads",) if sizes.get("kv_heads") == {1} else ()
    table = tuple((axis, () if axis in whole else split) for axis, split in layout.table)
    return dataclasses.replace(layout, table=table, stored=(*layout.stored, *divides))


def _is_spec(x: object) -> bool:
    return isinstance(x, PartitionSpec)
