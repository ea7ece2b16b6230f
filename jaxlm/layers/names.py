"""Dotted names of a pytree's leaves, and the one split of a model into what is trained and what is not.

A name is the path to a leaf: fields of dataclasses and named tuples, keys of dicts and places in tuples,
joined by dots ("blocks.period.0.attention.query.kernel"). None is no leaf: an absent bias has no name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax

from jaxlm.config.errors import Failure

Tree = TypeVar("Tree")


def name_of(path: tuple) -> str:
    """The dotted name of one key path of `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def flatten(tree: Any) -> dict[str, Any]:
    """Each leaf by its dotted name, in the tree's own order.

    Raises ValueError when two leaves share a name.
    """
    named = [(name_of(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]
    flat = dict(named)
    if len(flat) != len(named):
        names = [name for name, _ in named]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"two leaves share the name {twice[0]!r}: a dict key holds a dot or a number")
    return flat


def map_named(function: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """The same tree with each leaf replaced by function(name, leaf)."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(name_of(path), leaf), tree)


def to_nested(tree: Any) -> dict[str, Any]:
    """Plain dicts within dicts, one level for each word of a name: what a checkpoint stores.

    Raises ValueError when a leaf's name is the beginning of another's ("a" and "a.b").
    """
    nested: dict[str, Any] = {}
    for name, leaf in flatten(tree).items():
        *parents, last = name.split(".")
        level = nested
        for word in parents:
            level = level.setdefault(word, {})
            if not isinstance(level, dict):
                raise ValueError(f"the name {name!r} goes through another leaf")
        if last in level:
            raise ValueError(f"the name {name!r} is also the beginning of another")
        level[last] = leaf
    return nested


def from_nested(template: Tree, nested: dict[str, Any]) -> Tree:
    """The template's tree with the leaves of `nested` (nested by words, or flat by dotted names).

    Template leaves need only a shape. Dtypes are taken as they come. Raises `Failure` that lists the first
    ten names that are missing, unexpected or of another shape.
    """
    wanted, given = flatten(template), flatten(nested)
    problems = differences(
        {name: tuple(leaf.shape) for name, leaf in wanted.items()},
        {name: tuple(leaf.shape) for name, leaf in given.items()},
    )
    if problems:
        raise Failure("these weights do not fit this model:\n" + listed(problems))
    return jax.tree.unflatten(jax.tree.structure(template), [given[name] for name in wanted])


def differences(wanted: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """One line for each name that is missing from `given`, unexpected in it, or has another value there."""
    missing = [f"missing {name} {wanted[name]}" for name in wanted if name not in given]
    unexpected = [f"unexpected {name} {given[name]}" for name in given if name not in wanted]
    other = [
        f"{name} is {given[name]}, not {wanted[name]}"
        for name in wanted
        if name in given and given[name] != wanted[name]
    ]
    return missing + unexpected + other


def listed(problems: list[str], most: int = 10) -> str:
    """The first problems, one indented line each, and how many more there are."""
    more = [f"  and {len(problems) - most} more"] if len(problems) > most else []
    return "\n".join([f"  {problem}" for problem in problems[:most]] + more)


def partition(tree: Tree, where: Callable[[str, Any], bool]) -> tuple[Tree, Tree]:
    """(trainable, frozen): the tree twice, each leaf in one and None in the other, by where(name, leaf)."""
    chosen = map_named(lambda name, leaf: bool(where(name, leaf)), tree)
    trainable = jax.tree.map(lambda leaf, keep: leaf if keep else None, tree, chosen)
    frozen = jax.tree.map(lambda leaf, keep: None if keep else leaf, tree, chosen)
    return trainable, frozen


def combine(trainable: Tree, frozen: Tree) -> Tree:
    """The tree that `partition` split. Raises ValueError where both halves hold a leaf."""

    def either(path: tuple, first: Any, second: Any) -> Any:
        if first is not None and second is not None:
            raise ValueError(f"both halves hold {name_of(path)}")
        return second if first is None else first

    return jax.tree_util.tree_map_with_path(either, trainable, frozen, is_leaf=lambda leaf: leaf is None)
