"""Coordinate check: do activations of wide and narrow models move alike in their first steps?

Yang et al. 2022 (arXiv:2203.03466, section D.1): by muP the mean size of an activation's coordinates does not
depend on the width, at the start and after each step; by the standard one what has been learned grows with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.layers.contracts import Batch
from jaxlm.study.start import start
from jaxlm.train.state import State

TAPS = ("attention", "mlp", "residual")
Sizes = dict[str, Float[np.ndarray, "step"]]


def sizes(
    model: config.Decoder, optimizer: config.optimizer.Optimizer, batch: Batch, steps: int = 4, seeds: int = 4
) -> Sizes:
    """Mean |activation| of each tap of each layer before and after every step on one batch, averaged over initial
    parameters of several seeds.

    `scores` is how much the score of the right token, less the mean of all, has changed since the start: what
    scores begin with vanishes by muP as the width grows, what is learned does not.
    """
    begun = start(model, optimizer, steps)
    tapped = dataclasses.replace(begun.call, taps=TAPS)

    def look(made: Any) -> dict[str, Array]:
        output = made(batch.inputs, tapped)
        scores = made.logits(output.hidden, tapped)
        right = jnp.take_along_axis(scores, batch.targets[..., None], axis=-1)[..., 0]
        taps = {f"{name}.{i}": one for name, layers in output.taps.items() for i, one in enumerate(layers)}
        found = {name: jnp.mean(jnp.abs(one)) for name, one in taps.items()}
        return found | {"scores": right - jnp.mean(scores, axis=-1)}

    def taken(key: Array) -> dict[str, Array]:
        def body(state: State, _: None) -> tuple[State, dict[str, Array]]:
            return begun.step(state, batch)[0], look(state.model)

        return jax.lax.scan(body, begun.state(key), None, length=steps + 1)[1]

    keys = jax.random.split(jax.random.key(0), seeds)
    found = jax.device_get(jax.jit(lambda keys: jax.lax.map(taken, keys))(keys))
    gained = found["scores"] - found["scores"][:, :1]
    found["scores"] = np.abs(gained[:, 1:]).mean(axis=(2, 3))
    return {name: np.mean(one, axis=0) for name, one in found.items()}


def slopes(by_width: Mapping[int, Sizes]) -> Sizes:
    """The slope of log size against log width, of each tap at each step, of `scores` after each."""
    widths = np.log(list(by_width))
    names = next(iter(by_width.values()))
    return {name: np.polyfit(widths, np.log([one[name] for one in by_width.values()]), 1)[0] for name in names}
