"""Adapters apart from their model, back on it, and merged into it."""

from __future__ import annotations

from typing import Literal, TypeVar

import jax
from jaxtyping import PyTree

from jaxlm.adapters.bottleneck import Bottleneck
from jaxlm.adapters.build import adapted, trained
from jaxlm.adapters.over import Over
from jaxlm.adapters.virtual import without_virtual
from jaxlm.config.adapter import Adapter
from jaxlm.config.errors import Failure, UsageError
from jaxlm.layers.names import combine, differences, flatten, listed, partition
from jaxlm.layers.projection import Dense, Weight
from jaxlm.layers.weights import map_weights, weights_of

Tree = TypeVar("Tree")


def attached(model: Tree, adapter: Adapter, leaves: PyTree) -> Tree:
    """The model with an adapter whose trained leaves are these, as `partition(adapted model, trained(adapter))[0]`
    or a flat dict by dotted names has them.

    Raises Failure that lists leaves that are missing, unexpected or of another shape.
    """
    first, frozen = partition(adapted(model, adapter, jax.random.key(0)), trained(adapter))
    wanted, given = flatten(first), flatten(leaves)
    shapes = ({name: tuple(leaf.shape) for name, leaf in tree.items()} for tree in (wanted, given))
    if problems := differences(*shapes):
        raise Failure("this adapter does not fit this model:\n" + listed(problems))
    return combine(jax.tree.unflatten(jax.tree.structure(first), [given[name] for name in wanted]), frozen)


def detached(model: Tree) -> Tree:
    """The model without its outermost adapters and its virtual tokens, as it was before `adapted`.

    Biases that BitFit has trained are the model's own: they stay.
    """
    model = without_virtual(model)
    return map_weights(lambda _, weight: weight.base if isinstance(weight, Over) else weight, model)


def merged(model: Tree, base: Literal["dense", "rounded", "full"] = "dense", full: Tree | None = None) -> Tree:
    """The model with each adapted weight as one dense matrix, summed in float32 and kept in the base's format.

    An adapter has been trained against one base: a sum with another matrix is another model. So what it is merged
    into is said: "dense" bases, which nothing has rounded; "rounded", the numbers that a quantized base stands for,
    with which it was trained (QLoRA); "full", the weights of the model `full` from before they were rounded, whose
    errors the adapter may have learned to make up for. In a base of 16 bits the sum is rounded again.

    Raises UsageError for a quantized base that "dense" finds, for bottlenecks, which are no matrices, and for a
    `full` that is not given or lacks a weight.
    """
    if (base == "full") != (full is not None):
        raise UsageError('merged: base="full" and a model `full` go together')
    originals = {} if full is None else weights_of(full)

    def one(name: str, weight: Weight) -> Weight:
        if not isinstance(weight, Over):
            return weight
        if isinstance(weight, Bottleneck):
            raise UsageError(f"{name}: a bottleneck is no matrix and cannot be merged: keep it beside the model")
        if base == "dense" and not isinstance(innermost(weight), Dense):
            raise UsageError(
                f"{name} was trained over a {type(innermost(weight)).__name__} weight: merge into what that stands "
                'for, base="rounded", or into the matrix it was made from, base="full" with that model'
            )
        if full is not None:
            if name not in originals:
                raise UsageError(f"merged: the model `full` has no weight {name}")
            weight = over(weight, originals[name])
        return Dense(weight.dense(), weight.bias, weight.axes, weight.inputs)

    return map_weights(one, model)


def innermost(weight: Weight) -> Weight:
    """What lies below all adapters."""
    return innermost(weight.base) if isinstance(weight, Over) else weight


def over(weight: Weight, base: Weight) -> Weight:
    """The same adapters over another base."""
    return weight.replace(base=over(weight.base, base)) if isinstance(weight, Over) else base
