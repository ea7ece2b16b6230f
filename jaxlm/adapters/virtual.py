"""Prefix tuning (Li and Liang 2021, arXiv:2101.00190) and prompt tuning (Lester et al. 2021, arXiv:2104.08691)."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxlm import config
from jaxlm.adapters.over import Shape
from jaxlm.config.block import blocks
from jaxlm.config.errors import UsageError
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


def check_virtual(model: Any, adapter: config.PrefixTuning | config.PromptTuning, named: str) -> None:
    """Raises UsageError for models whose attention cannot take virtual tokens, or has some already."""
    kind = getattr(model, "config", None)
    if adapter.length < 1:
        raise UsageError(f"adapter.length={adapter.length}: it is at least 1")
    if not isinstance(kind, config.Decoder | config.Encoder | config.EncoderDecoder):
        raise UsageError(f"adapter: {named} has no attention that keys could be added to; use lora")
    found = blocks(kind.block, getattr(kind, "layers", 0) or kind.decoder_layers)
    positions = {type(kind.position), *(type(block.attention.position) for block in found)}
    if distances := positions & {config.Shaw, config.TransformerXl, config.Disentangled}:
        raise UsageError(
            f"adapter: {distances.pop().__name__} has vectors of distances, and virtual tokens none; use lora"
        )
    if _virtual(model):
        raise UsageError("adapter: this model has virtual tokens already; take `detached` of it first")
    if isinstance(adapter, config.PrefixTuning):
        return
    if not isinstance(kind, config.Decoder):
        raise UsageError(
            f"adapter is prompt_tuning: in {named} a prompt would see the documents it stands before, and not be "
            "the same for all of a row; use prefix_tuning"
        )
    if kind.ahead:
        raise UsageError(f"adapter is prompt_tuning: heads of model.ahead={kind.ahead} begin without it; use lora")
    if any(isinstance(block.mlp, config.Moe) for block in found):
        raise UsageError("adapter is prompt_tuning: a router would count its tokens; use prefix_tuning")


def without_virtual(model: Tree) -> Tree:
    """The model without prefixes and prompts."""

    def one(part: Any) -> Any:
        return part.replace(attention=part.attention.replace(prefix=None)) if isinstance(part, Block) else part

    model = jax.tree.map(one, model, is_leaf=lambda part: isinstance(part, Block))
    return model.replace(prompt=None) if isinstance(model, Decoder) else model


def _virtual(model: Any) -> bool:
    found = jax.tree.leaves(model, is_leaf=lambda part: isinstance(part, Prefix | Prompt))
    return any(isinstance(part, Prefix | Prompt) for part in found)
