"""One scale for what comes into a product: where a static quantization of activations clips."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from jaxlm.quantize.moments import Inputs, Real, Sizes

Range = Literal["absmax", "percentile", "mse"]
"""The largest |x| of all; what PERCENTILE of all |x| are below; or what loses least, squared."""
PERCENTILE = 0.9999
BINS = 4096
STEPS = 64
"""Ranges that are tried: 1/64, 2/64 ... of the largest."""


@struct.dataclass
class Spread:
    """How |x| is spread up to the largest, and the squared error of each range that is tried (see `Statistic`)."""

    tokens: Float[Array, ""]
    counts: Float[Array, "bin"]
    errors: Float[Array, "step"]
    """Sums over tokens and inputs."""

    @classmethod
    def of(cls, x: Inputs, real: Real, largest: Float[Array, ""], most: Float[Array, ""]) -> Spread:
        """With the largest |x| of all rows, and the highest level of the grid, 2^(bits - 1) - 1."""
        x = jnp.where(real[:, None], x.astype(jnp.float32), 0.0)
        bins = jnp.clip(jnp.abs(x) / largest * BINS, 0, BINS - 1).astype(jnp.int32)
        share = jnp.broadcast_to(real[:, None], x.shape).astype(jnp.float32)
        counts = jnp.zeros(BINS).at[bins.reshape(-1)].add(share.reshape(-1))

        def lost(number: Array) -> Array:
            step = largest * (number + 1) / STEPS / most
            rounded = jnp.clip(jnp.round(x / step), -most - 1, most) * step
            return jnp.sum(jnp.square(rounded - x))

        return cls(jnp.sum(real, dtype=jnp.float32), counts, jax.lax.map(lost, jnp.arange(STEPS)))

    def joined(self, other: Spread) -> Spread:
        """See `Statistic`."""
        return Spread(self.tokens + other.tokens, self.counts + other.counts, self.errors + other.errors)


def reach(sizes: Sizes, spread: Spread | None, by: Range) -> Float[Array, ""]:
    """The |x| that the last level stands for; `spread` is of the same tokens, and needless for the largest."""
    largest = jnp.max(sizes.largest)
    match by:
        case "absmax":
            return largest
        case "percentile":
            below = jnp.cumsum(spread.counts) / jnp.sum(spread.counts)
            return largest * (jnp.argmax(below >= PERCENTILE) + 1) / BINS
        case "mse":
            return largest * (jnp.argmin(spread.errors) + 1) / STEPS


def step(reach: Float[Array, ""], bits: int) -> Float[Array, ""]:
    """The distance of levels, as `products.steps` has it; 1 where all activations are 0."""
    found = reach * np.float32(1 / (2 ** (bits - 1) - 1))
    return jnp.where(found >= jnp.finfo(jnp.float32).tiny, found, jnp.float32(1.0))
