"""A student made of its teacher's own parameters: fewer layers, heads or features, nothing else changed.

Which heads and features are kept by importance: a query head by |value| |out|, the norms of the matrices that its
output passes through; a hidden feature of an MLP by |up| |down|; a feature of the stream by the norm of all
matrices that meet it. Products do not change when one factor grows as the other shrinks, as the function does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.config.model import Model as Config
from jaxlm.config.surgery import Cut, cut
from jaxlm.layers.axes import logical_axes
from jaxlm.layers.contracts import Model
from jaxlm.layers.names import flatten, from_nested
from jaxlm.layers.stack import Stack
from jaxlm.models import build
from jaxlm.models.encoder_decoder import EncoderDecoder

STREAM = ("embed", "features")
"""Logical axes that are the residual stream's features, where they are as many."""
Kept = dict[str, Int[Array, "kept"]]
"""Logical axis -> what is kept of it, in order."""


def student(model: Model, what: Cut) -> tuple[Model, Config]:
    """What is left of a model, and its config; the same parameters where nothing is cut.

    Raises UsageError for what cannot be cut, and Failure for weights that are not plain: merge adapters first.
    """
    kind = cut(model.config, what)
    template = jax.eval_shape(lambda: build(kind, jax.random.key(0)))
    kept = {axis: _kept(_of_stream(model), kind.embed, what) for axis in STREAM}
    stacks, theirs = _stacks(template), _stacks(model)
    inside = tuple(f"{name}." for name in stacks)
    wanted, axes, leaves = flatten(template), flatten(logical_axes(model)), flatten(model)
    found = {
        name: _sliced(leaves[name], axes[name].axes, wanted[name].shape, kept)
        for name in wanted
        if name in leaves and not name.startswith(inside)
    }
    for name, stack in stacks.items():
        layers = _kept_layers(theirs[name], stack.depth, what.encoder_layers if name == "encoder" else what.layers)
        found |= {f"{name}.{path}": leaf for path, leaf in _restacked(layers, stack, kept, what).items()}
    return from_nested(template, found), kind


def _stacks(model: Model) -> dict[str, Stack]:
    """The stacks of layers by name."""
    if isinstance(model, EncoderDecoder):
        return {"encoder": model.encoder, "decoder.blocks": model.decoder.blocks}
    return {"blocks": model.blocks}


def _kept_layers(stack: Stack, depth: int, chosen: tuple[int, ...]) -> list[Any]:
    layers = stack.layers()
    return [layers[layer] for layer in chosen or range(depth)]


def _restacked(layers: Sequence[Any], stack: Stack, kept: Kept, what: Cut) -> dict[str, Array]:
    """The parameters of these layers by their names in a stack of such shapes."""
    parts: dict[str, list[dict[str, Array]]] = {}
    for layer, shape, (path, _) in zip(layers, _shapes(stack), stack.places(), strict=False):
        wanted, own = flatten(shape), kept | _of_layer(layer, shape, what)
        axes, leaves = flatten(logical_axes(layer)), flatten(layer)
        cut = {
            name: _sliced(leaf, axes[name].axes, wanted[name].shape, own) if name in wanted else leaf
            for name, leaf in leaves.items()
        }
        parts.setdefault(path, []).append(cut)
    stacked = {path: place is not None for path, place in stack.places()}
    return {
        f"{path}.{name}": jnp.stack([one[name] for one in several]) if stacked[path] else several[0][name]
        for path, several in parts.items()
        for name in several[0]
    }


def _shapes(stack: Stack) -> list[Any]:
    """Each layer's abstract parameters, in order."""
    return jax.eval_shape(lambda stack: stack.layers(), stack)


def _sliced(leaf: Array, axes: Sequence[str], shape: Sequence[int], kept: Kept) -> Array:
    """What is kept of a parameter along every axis that is to be shorter."""
    before = leaf.ndim - len(axes)
    for dim, axis in enumerate(axes, start=before):
        if leaf.shape[dim] == shape[dim]:
            continue
        if axis not in kept:
            raise UsageError(f"parameters along {axis!r} cannot be cut from {leaf.shape[dim]} to {shape[dim]}")
        leaf = jnp.take(leaf, kept[axis], axis=dim)
    return leaf


# --- what is kept ------------------------------------------------------------------------------------------


def _kept(importance: Float[Array, "all"], count: int, what: Cut) -> Int[Array, "kept"]:
    """The most important ones in their own order, or the first."""
    if what.by == "first" or count >= importance.shape[0]:
        return jnp.arange(count)
    return jnp.sort(jnp.argsort(-importance, stable=True)[:count])


def _of_layer(layer: Any, shape: Any, what: Cut) -> Kept:
    """Of the heads and hidden features of one layer."""
    found: Kept = {}
    if what.heads:
        attention, wanted = layer.attention, shape.attention.config
        each = jnp.linalg.norm(attention.out.dense(), axis=(1, 2))
        values = jnp.linalg.norm(attention.value.dense(), axis=(0, 2))
        shared = attention.config.heads // attention.config.kv_heads
        each *= jnp.repeat(values, shared)
        if attention.config.kv_heads == 1:
            found |= {"heads": _kept(each, wanted.heads, what), "kv_heads": jnp.arange(1)}
        else:
            groups = _kept(jnp.sum(each.reshape(-1, shared), axis=1), wanted.kv_heads, what)
            found["kv_heads"] = groups
            found["heads"] = (groups[:, None] * shared + jnp.arange(shared)[None]).reshape(-1)
    if what.width:
        up, down = layer.mlp.up.dense(), layer.mlp.down.dense()
        each = jnp.linalg.norm(up, axis=0) * jnp.linalg.norm(down, axis=1)
        found["mlp"] = _kept(each, what.width, what)
    return found


def _of_stream(model: Model) -> Float[Array, "embed"]:
    """How much each feature of the residual stream weighs in all matrices that meet it."""
    size = model.config.embed
    total = jnp.zeros(size, jnp.float32)
    for named, leaf in zip(jax.tree.leaves(logical_axes(model)), jax.tree.leaves(model), strict=True):
        before = leaf.ndim - len(named.axes)
        for dim, axis in enumerate(named.axes, start=before):
            if len(named.axes) > 1 and axis == "embed" and leaf.shape[dim] == size:
                others = tuple(other for other in range(leaf.ndim) if other != dim)
                total += jnp.sum(jnp.square(leaf.astype(jnp.float32)), axis=others)
    return total
