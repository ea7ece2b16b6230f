"""Position encodings: each kind acts at the places it is defined for, and nowhere else.

A kind may add to the embedding (`embed`), turn queries and keys (`rotate`), or bias the scores (`bias`); what it
does not override does nothing. One is built for a model and handed to every layer.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers import rope
from jaxlm.layers.contracts import Call
from jaxlm.layers.initial import Initial
from jaxlm.layers.projection import Weight, look_up

Heads = Float[Array, "row pos heads head"]
Positions = Int[Array, "row pos"]


@struct.dataclass
class NoPosition:
    """The causal mask is all there is; the other kinds start from this one's silence."""

    def embed(
        self, x: Float[Array, "row pos embed"], positions: Positions, call: Call
    ) -> Float[Array, "row pos embed"]:
        """The token embedding with what the positions add to it."""
        return x

    def rotate(self, x: Heads, positions: Positions) -> Heads:
        """Queries or keys, each by its own position."""
        return x

    def bias(
        self, q_positions: Int[Array, "row query"], k_positions: Int[Array, "row key"], heads: int, call: Call
    ) -> Float[Array, "row own_heads query key"] | None:
        """Added to the scaled scores of a device's own heads of all `heads`, or None."""
        return None


@struct.dataclass
class Rope(NoPosition):
    """Queries and keys are turned; see `layers/rope.py`."""

    config: config.Rope = struct.field(pytree_node=False)

    def rotate(self, x: Heads, positions: Positions) -> Heads:
        """Queries or keys, each by its own position."""
        rotated = int(self.config.fraction * x.shape[-1])
        if rotated % 2 or rotated < 2:
            raise UsageError(
                f"rope turns pairs of features: fraction {self.config.fraction} of a head of {x.shape[-1]} "
                f"is {rotated}; choose a fraction that gives an even number"
            )
        with jax.named_scope("position"):
            kind = self.config
            radians = rope.frequencies(kind.theta, rotated, kind.scaling)
            return rope.rotate(x, positions, radians, kind.pairs, rope.magnitude(kind.scaling))


@struct.dataclass
class Sinusoidal(NoPosition):
    """Sines and cosines are added, computed where they are needed."""

    config: config.Sinusoidal = struct.field(pytree_node=False)

    def embed(
        self, x: Float[Array, "row pos embed"], positions: Positions, call: Call
    ) -> Float[Array, "row pos embed"]:
        """The token embedding with what the positions add to it. Raises UsageError for odd features."""
        if x.shape[-1] % 2:
            raise UsageError(f"sinusoidal positions fill pairs of features: {x.shape[-1]} features are odd")
        with jax.named_scope("position"):
            radians = rope.frequencies(self.config.theta, x.shape[-1])
            angles = positions[..., None].astype(jnp.float32) * radians.reshape(1, 1, -1)
            waves = (jnp.sin(angles), jnp.cos(angles))
            if self.config.pairs == "halves":
                return x + jnp.concatenate(waves, axis=-1).astype(x.dtype)
            return x + jnp.stack(waves, axis=-1).reshape(x.shape).astype(x.dtype)


@struct.dataclass
class Alibi(NoPosition):
    """Scores fall with distance."""

    factor: float = struct.field(pytree_node=False, default=1.0)

    def bias(
        self, q_positions: Int[Array, "row query"], k_positions: Int[Array, "row key"], heads: int, call: Call
    ) -> Float[Array, "row own_heads query key"]:
        """-factor * slope * distance; see `alibi_slopes`."""
        with jax.named_scope("position"):
            slopes = call.layout.own(jnp.asarray(self.factor * alibi_slopes(heads)), "heads", 0)
            distance = jnp.abs(q_positions[:, :, None] - k_positions[:, None, :]).astype(jnp.float32)
            return -slopes.reshape(1, -1, 1, 1) * distance[:, None]


def alibi_slopes(heads: int) -> Float[np.ndarray, "heads"]:
    """2^(-8/n), 2^(-16/n), ... for n heads; where n is no power of two, those of the power below, then every other
    of the power above (Press et al. 2021, section 3, and its released code).
    """
    below = 2 ** int(math.log2(heads))
    slopes = 2.0 ** (-8.0 / below * np.arange(1, below + 1))
    between = 2.0 ** (-4.0 / below * np.arange(1, 2 * below + 1, 2))
    return np.concatenate([slopes, between])[:heads].astype(np.float32)


@struct.dataclass
class Learned(NoPosition):
    """A trained vector is added for each position; positions beyond the table are an error of the caller."""

    table: Weight
    offset: int = struct.field(pytree_node=False, default=0)

    def embed(
        self, x: Float[Array, "row pos embed"], positions: Positions, call: Call
    ) -> Float[Array, "row pos embed"]:
        """The token embedding with what the positions add to it."""
        with jax.named_scope("position"):
            return x + look_up(self.table, positions + self.offset, call)


Position = NoPosition | Rope | Sinusoidal | Alibi | Learned


def initial_position(kind: config.model.Position, embed: int, init: Initial) -> Position:
    """The position encoding of a model; a table starts with standard deviation 0.02."""
    match kind:
        case config.NoPosition():
            return NoPosition()
        case config.Rope():
            return Rope(kind)
        case config.Sinusoidal():
            return Sinusoidal(kind)
        case config.Alibi(factor):
            return Alibi(factor)
        case config.Learned():
            rows = kind.offset + kind.length
            return Learned(init.dense("table", (rows, embed), ("positions", "embed"), std=0.02), kind.offset)
