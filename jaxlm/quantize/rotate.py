"""Rotation of the residual stream: other numbers in every weight, and the same function.

The scale of each RMS norm goes into the weights that read it, after which the norm divides by a length only. With
an orthogonal Q, |x Q| = |x|: what writes to the stream is multiplied by Q, what reads it by Q transposed, and all
that lies in between is as it was (SliceGPT, Ashkboos et al. 2024, arXiv:2401.15024, section 3; QuaRot, Ashkboos et
al. 2024, arXiv:2404.00456, section 4, stage 1a). Each number becomes a sum of many, and lies on no grid on which
weights were stored before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Integers
from jaxlm.config.rotation import rotated
from jaxlm.layers import norms, positions
from jaxlm.layers.axes import logical_axes
from jaxlm.layers.block import Block
from jaxlm.layers.names import flatten, map_named
from jaxlm.layers.norms import Norm
from jaxlm.layers.projection import Dense, Weight
from jaxlm.layers.stack import Stack
from jaxlm.layers.weights import weights_of
from jaxlm.models.decoder import Decoder
from jaxlm.models.heads import Classifier
from jaxlm.parallel.layout import Axes
from jaxlm.quantize import grid
from jaxlm.quantize.calibrate import matrix

Square = Float[np.ndarray, "embed embed"]
Gain = Float[np.ndarray, "embed"]
WRITERS = ("out", "down")
"""Weights of a block whose products are added to the stream."""


def orthogonal(features: int, key: Key[Array, ""]) -> Square:
    """A random orthogonal matrix, in float64: Hadamard's with random signs, where features are a power of 2.

    Else it is evenly distributed over all: Q of a normal matrix, the diagonal of R positive (Mezzadri 2007,
    arXiv:math-ph/0609050, section 5).
    """
    if features & (features - 1) == 0:
        hadamard = np.ones((1, 1))
        while len(hadamard) < features:
            hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
        signs = np.asarray(jax.random.rademacher(key, (features,)), np.float64)
        return signs[:, None] * hadamard / np.sqrt(features)
    q, r = np.linalg.qr(np.asarray(jax.random.normal(key, (features, features)), np.float64))
    return q * np.sign(np.diag(r))


def rotate(model: Any, key: Key[Array, ""]) -> Decoder:
    """The model with a rotated stream, its norms' scales in the weights; a tied head becomes one of its own.

    Scores are the same but for rounding: products are made in float64, and stored as weights were. Hidden states
    are turned, and so is what taps show of the stream. Raises UsageError as `config.rotation.rotated`, and for
    weights that are no plain matrices.
    """
    turned = rotated(model.config)
    _check(model)
    q, last = orthogonal(turned.embed, key), _gain(model.norm)
    position = model.position
    if isinstance(position, positions.Learned):
        position = position.replace(table=_written(position.table, q))
    return model.replace(
        embedding=_written(model.embedding, q),
        position=position,
        blocks=_each(lambda layer: _layer(layer, q), model.blocks),
        norm=_without_gain(model.norm),
        head=_read(_own_head(model), last, q),
        config=turned,
        classifier=None if model.classifier is None else _classifier(model.classifier, last, q),
        ahead=tuple(_layer(layer, q) for layer in model.ahead),
    )


def moved(before: Any, after: Any, format: Integers) -> float:
    """The share of numbers in the layers' weights that lie further from where they were than half a step.

    Steps are those of the grid that `before` has in this format, group by group. Of two models of one structure;
    raises UsageError for groups that do not divide the inputs.
    """
    far = whole = 0
    for old, new in zip(before.blocks.layers(), after.blocks.layers(), strict=True):
        news = weights_of(new)
        for name, weight in weights_of(old).items():
            there = matrix(weight)
            step = grid.fit(there, format).scale
            distance = grid.by_group(jnp.abs(matrix(news[name]) - there), step.shape[0])
            far, whole = far + int(jnp.sum(distance > step[:, None] / 2)), whole + there.size
    return far / whole


def _check(model: Decoder) -> None:
    """Nothing, if all weights are plain matrices, and there is no prompt. Raises UsageError."""
    for name, weight in weights_of(model).items():
        if not isinstance(weight, Dense):
            raise UsageError(
                f"rotation: {name} is {type(weight).__name__}, no plain matrix; merge adapters first, and round "
                "numbers afterwards"
            )
    if model.prompt is not None:
        raise UsageError("rotation: a trained prompt stands in the stream; rotate the model that it was trained on")


def _each(function: Callable[[Block], Block], stack: Stack) -> Stack:
    """The stack with each layer, taken by itself, replaced."""

    def stacked(layers: Block) -> Block:
        ones = [function(jax.tree.map(lambda leaf, r=r: leaf[r], layers)) for r in range(stack.repeats)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *ones)

    alone = {part: tuple(map(function, getattr(stack, part))) for part in ("prefix", "shared", "suffix")}
    return stack.replace(period=tuple(map(stacked, stack.period)), **alone)


def _layer(layer: Block, q: Square) -> Block:
    """One layer: every matrix, an expert's too, and the biases of those that write."""
    first = _gain(layer.attention_norm)
    gains = {"attention": first, "mlp": first if layer.mlp_norm is None else _gain(layer.mlp_norm)}
    axes = flatten(logical_axes(layer))

    def one(name: str, leaf: Array) -> Array:
        part, *inner = name.split(".")
        if "embed" not in axes[name].axes or inner[0] == "position":  # which may read sinusoids, not the stream
            return leaf
        writes = inner[-2] in WRITERS
        return _along(leaf, axes[name].axes, q if writes else gains[part][:, None] * q)

    new = map_named(one, layer)
    after = None if layer.mlp_norm is None else _without_gain(layer.mlp_norm)
    return new.replace(attention_norm=_without_gain(layer.attention_norm), mlp_norm=after)


def _gain(norm: Norm) -> Gain:
    """What a norm multiplies by."""
    scale = np.asarray(norm.scale, np.float64)
    return 1 + scale if isinstance(norm, norms.ZeroCentered) else scale


def _without_gain(norm: Norm) -> Norm:
    """The norm that multiplies by one."""
    one = 0 if isinstance(norm, norms.ZeroCentered) else 1
    return norm.replace(scale=jnp.full_like(norm.scale, one))


def _along(leaf: Float[Array, "..."], axes: Axes, turn: Square) -> Float[Array, "..."]:
    """Each vector v along the first dimension of features as v turn, in the leaf's own format."""
    place = axes.index("embed")
    turned = np.moveaxis(np.asarray(leaf, np.float64), place, -1) @ turn
    return jnp.asarray(np.moveaxis(turned, -1, place), leaf.dtype)


def _read(weight: Dense, gain: Gain, q: Square) -> Dense:
    """Q^T diag(gain) W, of a weight that reads the stream behind a norm of this gain."""
    return weight.replace(kernel=_along(weight.kernel, weight.axes, gain[:, None] * q))


def _written(table: Dense, q: Square) -> Dense:
    """W Q, of a table whose rows are added to the stream."""
    return table.replace(kernel=_along(table.kernel, table.axes, q))


def _own_head(model: Decoder) -> Weight:
    """The head, of a tied one the transposed table times its factor."""
    match model.config.head:
        case config.Tied(scale=scale):
            return Dense(model.embedding.kernel.T * scale, None, ("embed", "vocab"))
        case _:
            return model.head


def _classifier(classifier: Classifier, gain: Gain, q: Square) -> Classifier:
    """The matrix that reads hidden states."""
    if classifier.dense is None:
        return classifier.replace(out=_read(classifier.out, gain, q))
    return classifier.replace(dense=_read(classifier.dense, gain, q))
