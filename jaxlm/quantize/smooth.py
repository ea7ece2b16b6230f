"""SmoothQuant: outliers of activations moved into weights, where rounding can bear them (arXiv:2211.10438)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.config.errors import UsageError
from jaxlm.layers.block import Block
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.layers.weights import weights_of
from jaxlm.quantize.calibrate import Place, Say, Stream, each_layer, matrix, restacked
from jaxlm.quantize.fold import blocks_of, folded, normed_readers
from jaxlm.quantize.moments import Sizes

ALPHA = 0.5
LEAST = 1e-5
"""Of the sizes that scales are made of: no input is scaled by zero, or divided by it."""


def smoothing(
    activations: Float[Array, "inputs"], weights: Float[Array, "inputs"], alpha: float
) -> Float[Array, "inputs"]:
    """s_j = max|x_j|^alpha / max|W_j|^(1 - alpha) (equation 4); with alpha = 0 too, s is not 1."""
    activations, weights = (jnp.maximum(one, LEAST) for one in (activations, weights))
    return activations**alpha / weights ** (1 - alpha)


def smooth(model: Any, rows: Tokens, call: Call, *, alpha: float = ALPHA, batch: int = 4, say: Say = print) -> Any:
    """The model, which computes the same, with scales in its norms and the weights behind them.

    One scale for all weights that read a norm: query, key and value; gate and up. What reads anything else (out,
    down) is left, as in the paper. The more `alpha`, the more of the difficulty goes to the weights; 0.5 to 0.85
    are in use. Raises UsageError for an alpha outside of 0 to 1, models without such norms (`PostNorm`, recurrent
    ones), and as `each_layer` does.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha={alpha}: expected 0 (all to activations) to 1 (all to weights)")
    blocks_of(model)
    moved: list[str] = []

    def treat(place: Place) -> Block:
        found = normed_readers(place.layer)
        sizes = [place.measured(reader.tap, Sizes) for reader in found]
        for reader, size in zip(found, sizes, strict=True):
            scale = smoothing(size.largest, _largest(place, reader.weights), alpha)
            place = place.holding(folded(place, reader, scale))
            moved.append(place.full(reader.tap))
        return place.layer

    model = each_layer(model, rows, call, treat, batch=batch, say=say)
    if not moved:
        raise UsageError(
            "SmoothQuant: no layer has a norm that only projections read; where blocks normalize after their "
            "branches (PostNorm, ResPostNorm), there is nothing to smooth into"
        )
    say(f"smoothed what {len(moved)} norms make, alpha {alpha:g}")
    return model


def _largest(place: Place, names: tuple[str, ...]) -> Float[Array, "inputs"]:
    """max |W_j| over all the outputs of some weights."""
    weights = weights_of(place.layer)
    return jnp.stack([jnp.max(jnp.abs(matrix(weights[name])), axis=1) for name in names]).max(axis=0)


def plant_outliers(model: Any, channels: int = 4, factor: float = 30.0, seed: int = 0) -> Any:
    """The model, which computes the same, with some channels behind every norm `factor` times as large.

    For tests and studies: of models below some billions of parameters the activations have few outliers of their
    own (arXiv:2208.07339, figure 3). Channels are drawn for each norm of each layer. Raises UsageError as `smooth`.
    """
    blocks_of(model)
    stack, replaced, planted = model.blocks, {}, 0
    for number, ((path, _), layer) in enumerate(zip(stack.places(), stack.layers(), strict=True)):
        place = Place(f"blocks.{path}", number, layer, Stream((), ()), None, print)
        for which, reader in enumerate(normed_readers(layer)):
            inputs = matrix(weights_of(layer)[reader.weights[0]]).shape[0]
            rng = np.random.default_rng((seed, number, which))
            scale = np.ones(inputs, np.float32)
            scale[rng.choice(inputs, min(channels, inputs), replace=False)] = 1 / factor
            place, planted = place.holding(folded(place, reader, jnp.asarray(scale))), planted + 1
        replaced.setdefault(path, []).append(place.layer)
    if not planted:
        raise UsageError("outliers are planted in norms that only projections read, and there are none")
    return model.replace(blocks=restacked(stack, replaced))
