"""Initial parameters of RWKV as in the code released with the papers (github.com/BlinkDL/RWKV-LM).

Where that draws orthogonal matrices, these are normal with the same variance: gain^2 / max(inputs, outputs).
"""

from __future__ import annotations

from math import sqrt

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.layers.initial import Initial
from jaxlm.layers.projection import Dense
from jaxlm.models.rwkv.parts import HeadNorm, LowRank


class Depth:
    """Where a layer is: `up` from 0 in the first to 1 in the last, `down` from 1 to almost 0."""

    def __init__(self, init: Initial, layers: int):
        self.up = init.layer / max(layers - 1, 1)
        self.down = 1 - init.layer / layers
        self.share = (1 + init.layer) / layers


def ramp(features: int, power: Array | float) -> Float[Array, "features"]:
    """From 0 to almost 1 over the features."""
    return jnp.power(jnp.arange(features) / features, power)


def slope(features: int, power: Array | float = 1.0) -> Float[Array, "features"]:
    """From 0 to 1 over the features."""
    return jnp.power(jnp.arange(features) / max(features - 1, 1), power)


def thirds(features: int) -> Float[Array, "features"]:
    """0, 1, -1, 0, 1, -1, ..."""
    return (jnp.arange(features) + 1.0) % 3 - 1


def into(name: str, embed: int, width: int, axis: str, init: Initial, gain: float = 1.0) -> Dense:
    """From the features."""
    return init.dense(name, (embed, width), ("embed", axis), std=gain / sqrt(max(embed, width)))


def zero(name: str, width: int, embed: int, axis: str, init: Initial) -> Dense:
    """Back to the features, at first nothing: a layer begins as the identity."""
    return init.dense(name, (width, embed), (axis, "embed"), std=0.0)


def to_heads(name: str, shape: tuple[int, int, int], init: Initial, gain: float = 1.0) -> Dense:
    """From the features to those of the heads."""
    return init.dense(name, shape, ("embed", "heads", "head"), std=gain / sqrt(shape[0]))


def from_heads(name: str, shape: tuple[int, int, int], init: Initial) -> Dense:
    """Back to the features, at first nothing."""
    return init.dense(name, shape, ("heads", "head", "embed"), inputs=2, std=0.0)


def low_rank(name: str, embed: int, rank: int, base: Array | None, init: Initial, std: float) -> LowRank:
    """At first the base alone; `std` is that of the second matrix."""
    init = init.at(name)
    return LowRank(
        None if base is None else base.astype(init.dtype),
        init.dense("narrow", (embed, rank), ("embed", "rank"), std=0.0),
        init.dense("wide", (rank, embed), ("rank", "heads"), std=std),
    )


def head_norm(embed: int, depth: Depth, init: Initial) -> HeadNorm:
    """Smaller in the first layers."""
    scale = jnp.full(embed, jnp.power(depth.share, 0.7))
    return HeadNorm(scale.astype(init.dtype), jnp.zeros(embed, init.dtype))
