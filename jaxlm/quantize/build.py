"""Models in few bits: each weight rounded to the nearest in the format that the rules give it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Aware, NoQuantization, Quantization, Rounded, Rule
from jaxlm.layers.block import Block
from jaxlm.layers.projection import Weight
from jaxlm.quantize.aware import aware
from jaxlm.quantize.rules import ruled
from jaxlm.quantize.weight import Quantized

Tree = TypeVar("Tree")


def quantized(model: Tree, quantization: Quantization) -> Tree:
    """The model with its weights, and what decoding remembers, in few bits: `rules.ruled` says which, and raises.

    Works on abstract models too (`jax.eval_shape`). A mixture's experts are no weights of `layers.projection`, and
    stay as they are; so does what is rounded already. What has an adapter is merged with it first.
    """
    match quantization:
        case NoQuantization():
            return model
        case Aware():
            return aware(model, quantization)
        case Rounded():
            return with_cache(ruled(_nearest, model, quantization), quantization.cache)


def _nearest(_: str, weight: Weight, rule: Rule) -> Weight:
    """What has its codes already keeps them."""
    return weight if isinstance(weight, Quantized) else Quantized.of(weight, rule.format, rule.activations)


def with_cache(model: Tree, cache: str) -> Tree:
    """The model whose blocks remember keys and values in this form.

    Raises UsageError for one that has no such blocks, as recurrent ones have not.
    """
    found, count = _map_blocks(lambda block: block.replace(cache=cache), model)
    if count == 0 and cache != "model":
        raise UsageError(f"quantization.cache={cache}: this model keeps no keys and values; leave it at model")
    return found


def _map_blocks(function: Callable[[Block], Block], node: Tree) -> tuple[Tree, int]:
    """The same tree with each block replaced, and their number."""
    if isinstance(node, Block):
        return function(node), 1
    if isinstance(node, tuple):
        pairs = [_map_blocks(function, item) for item in node]
        return tuple(item for item, _ in pairs), sum(count for _, count in pairs)
    if not dataclasses.is_dataclass(node):
        return node, 0
    fields = [f.name for f in dataclasses.fields(node) if f.metadata.get("pytree_node", True)]
    pairs = {field: _map_blocks(function, getattr(node, field)) for field in fields}
    new = {field: item for field, (item, _) in pairs.items()}
    return dataclasses.replace(node, **new), sum(count for _, count in pairs.values())
