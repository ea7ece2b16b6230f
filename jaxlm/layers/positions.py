"""Position encodings: each kind acts at the places it is defined for, and nowhere else.

A kind may add to the embedding (`embed`), turn queries and keys (`rotate`), or bias the scores (`bias`); what it
does not override does nothing. One is built for a model and handed to every layer.
"""

from __future__ import annotations

import jax
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
        self, q_positions: Int[Array, "row query"], k_positions: Int[Array, "row key"]
    ) -> Float[Array, "row heads query key"] | None:
        """Added to the scaled scores, or None."""
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
            radians = rope.frequencies(self.config.theta, rotated)
            return rope.rotate(x, positions, radians, self.config.pairs)


@struct.dataclass
class Learned(NoPosition):
    """A trained vector is added for each position; positions beyond the table are an error of the caller."""

    table: Weight

    def embed(
        self, x: Float[Array, "row pos embed"], positions: Positions, call: Call
    ) -> Float[Array, "row pos embed"]:
        """The token embedding with what the positions add to it."""
        with jax.named_scope("position"):
            return x + look_up(self.table, positions, call)


Position = NoPosition | Rope | Learned


def initial_position(kind: config.Rope | config.Learned | config.NoPosition, embed: int, init: Initial) -> Position:
    """The position encoding of a model; a table starts with standard deviation 0.02."""
    match kind:
        case config.NoPosition():
            return NoPosition()
        case config.Rope():
            return Rope(kind)
        case config.Learned():
            return Learned(init.dense("table", (kind.length, embed), ("positions", "embed"), std=0.02))
