"""From a config to a model with adapters, and which of its leaves they train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxlm import config
from jaxlm.adapters.bottleneck import initial_bottleneck
from jaxlm.adapters.dora import initial_dora
from jaxlm.adapters.ia3 import initial_ia3
from jaxlm.adapters.lora import initial_lora
from jaxlm.adapters.over import Shape
from jaxlm.adapters.vera import initial_vera
from jaxlm.adapters.virtual import has_virtual, prefixed, prompted
from jaxlm.config.adapter import Adapter
from jaxlm.config.adapter_check import adapter_problems
from jaxlm.config.errors import UsageError
from jaxlm.layers.names import flatten
from jaxlm.layers.projection import Weight
from jaxlm.layers.random import site
from jaxlm.layers.weights import map_weights, matcher, targets, weights_of

Tree = TypeVar("Tree")

LEAVES = {
    config.Lora: ("a", "b"),
    config.Dora: ("a", "b", "magnitude"),
    config.Vera: ("inner", "outer"),
    config.Ia3: ("factor",),
    config.BitFit: ("bias",),
    config.Bottleneck: ("shrink", "shrink_bias", "expand", "expand_bias"),
    config.PrefixTuning: ("learned_keys", "learned_values"),
    config.PromptTuning: ("vectors",),
}
"""The last words of the names of what each kind trains; no other leaf of a model ends like these."""


def adapted(model: Tree, adapter: Adapter, key: Key[Array, ""]) -> Tree:
    """The model with adapters, which computes what it did; but for prefix and prompt tuning, since whatever else is
    seen takes attention from the text. Works on shapes alone (`jax.eval_shape`).

    Raises UsageError, which names the field and what would fit, for targets that are not there, ranks that are too
    large, and models of a kind for which the adapter is not defined.
    """
    _check(model, adapter)
    match adapter:
        case config.NoAdapter() | config.BitFit():
            return model
        case config.Lora() | config.Dora():
            make = initial_dora if isinstance(adapter, config.Dora) else initial_lora
            return _over(model, adapter.targets, lambda n, w: make(w, adapter, jax.random.fold_in(key, site(n)), n))
        case config.Vera():
            chosen = targets(adapter.targets, model, "adapter.targets")
            widest = max(Shape(weight).sides[0] for name, weight in weights_of(model).items() if name in chosen)
            return _over(model, adapter.targets, lambda n, w: initial_vera(w, adapter, widest, n))
        case config.Ia3():
            model = _over(model, adapter.targets, lambda _, w: initial_ia3(w, "outputs"))
            return _over(model, adapter.inputs, lambda _, w: initial_ia3(w, "inputs"), "adapter.inputs")
        case config.Bottleneck():
            return _over(
                model,
                adapter.targets,
                lambda n, w: initial_bottleneck(w, adapter, jax.random.fold_in(key, site(n)), n),
            )
        case config.PrefixTuning(length=length):
            return prefixed(model, length, key)
        case config.PromptTuning(length=length):
            return prompted(model, length, key)
        case _:
            raise TypeError(f"{type(adapter).__name__} is not an adapter config")


def _over(model: Tree, pattern: str, make: Callable[[str, Weight], Weight], field: str = "adapter.targets") -> Tree:
    """The model with `make(name, weight)` in place of each weight whose name the pattern is found in."""
    chosen = targets(pattern, model, field)
    return map_weights(lambda name, weight: make(name, weight) if name in chosen else weight, model)


def trained(adapter: Adapter) -> Callable[[str, Any], bool]:
    """Which leaves are trained, by dotted name: the adapter's own, and those that it names in `also`.

    Without an adapter all floating ones. Leaves of an adapter below another one are not. Raises UsageError for an
    `also` that is no regular expression.
    """
    if isinstance(adapter, config.NoAdapter):
        return lambda name, leaf: jnp.issubdtype(leaf.dtype, jnp.floating)
    also, last = adapter.also and matcher(adapter.also, "adapter.also"), LEAVES[type(adapter)]

    def own(name: str, leaf: Any) -> bool:
        *path, word = name.split(".")
        return bool(word in last and "base" not in path) or bool(also and also.search(name))

    return own


def _check(model: Any, adapter: Adapter) -> None:
    """Raises UsageError for numbers that cannot be, and for models that cannot have this adapter."""
    for problem in adapter_problems(adapter, model.config):
        raise UsageError(problem)
    match adapter:
        case config.Lora(rank=rank, targets=pattern) | config.Dora(rank=rank, targets=pattern):
            _check_rank(model, rank, pattern)
        case config.PrefixTuning() | config.PromptTuning() if has_virtual(model):
            raise UsageError("adapter: this model has virtual tokens already; take `detached` of it first")
        case config.BitFit() if not any(map(_is_bias, flatten(model))):
            raise UsageError(
                "adapter is bit_fit: this model has no biases to train; use lora, or a model with them "
                '(block.attention.bias="all", block.mlp.bias="all", norm:layer-norm)'
            )


def _is_bias(name: str) -> bool:
    return name.rsplit(".", 1)[-1] == "bias"


def _check_rank(model: Any, rank: int, pattern: str) -> None:
    chosen = targets(pattern, model, "adapter.targets")
    for name, weight in weights_of(model).items():
        if name in chosen and rank > min((shape := Shape(weight)).sides):
            raise UsageError(
                f"adapter.rank={rank}: {name} is {shape.text}, of rank {min(shape.sides)} at most; use a rank up "
                "to that, or leave it out of adapter.targets"
            )
