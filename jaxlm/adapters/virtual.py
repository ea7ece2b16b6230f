"""Prefix tuning (Li and Liang 2021, arXiv:2101.00190) and prompt tuning (Lester et al. 2021, arXiv:2104.08691)."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxlm.adapters.over import Shape
from jaxlm.layers.block import Block
from jaxlm.layers.names import name_of
from jaxlm.layers.random import site
from jaxlm.layers.virtual import Prefix, Prompt
from jaxlm.models.decoder import Decoder

Tree = TypeVar("Tree")

STD = 0.02
"""Of the keys and values of a prefix at first: scores near zero, values that add little."""


def prefixed(model: Tree, length: int, key: Key[Array, ""]) -> Tree:
    """The model with learned keys and values in the attention of every block to its own tokens; not in that of a
    decoder to an encoder's.
    """

    def one(path: tuple, part: Any) -> Any:
        if not isinstance(part, Block):
            return part
        name, shape = name_of(path), Shape(part.attention.key)
        size = (*shape.stacked, length, *shape.outputs)

        def draw(which: str) -> Array:
            numbers = jax.random.normal(jax.random.fold_in(key, site(f"{name}.{which}")), size, jnp.float32)
            return (STD * numbers).astype(shape.dtype)

        return part.replace(attention=part.attention.replace(prefix=Prefix(draw("keys"), draw("values"))))

    return jax.tree_util.tree_map_with_path(one, model, is_leaf=lambda part: isinstance(part, Block))


def prompted(model: Decoder, length: int, key: Key[Array, ""]) -> Decoder:
    """The model with vectors in front, which begin as those of tokens drawn from its vocabulary (section 3.2)."""
    ids = jax.random.randint(key, (length,), 0, model.config.vocab)
    return model.replace(prompt=Prompt(jnp.take(model.embedding.dense(), ids, axis=0)))


def without_virtual(model: Tree) -> Tree:
    """The model without prefixes and prompts."""

    def one(part: Any) -> Any:
        return part.replace(attention=part.attention.replace(prefix=None)) if isinstance(part, Block) else part

    model = jax.tree.map(one, model, is_leaf=lambda part: isinstance(part, Block))
    return model.replace(prompt=None) if isinstance(model, Decoder) else model


def has_virtual(model: Any) -> bool:
    """Whether a model has a prefix or a prompt."""
    found = jax.tree.leaves(model, is_leaf=lambda part: isinstance(part, Prefix | Prompt))
    return any(isinstance(part, Prefix | Prompt) for part in found)
