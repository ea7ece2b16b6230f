"""Position encodings: each kind acts at the places it is defined for, and nowhere else.

A kind may add to the embedding (`embed`), turn queries and keys (`rotate`), or bias the scores (`bias`); what it
does not override does nothing. One is built for a model and handed to every layer. What queries meet as they meet
keys has parameters in every layer: see `layers/attention/relative.py`.
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
from jaxlm.layers.attention.distances import distances, spread
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.contracts import Call
from jaxlm.layers.initial import Initial
from jaxlm.layers.norms import Norm, initial_norm
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

    def bias(self, mask: Mask, heads: int, call: Call) -> Float[Array, "_ own_heads query key"] | None:
        """Added to the scaled scores of a device's own heads of all `heads`, for each row or all; or None."""
        return None

    def vectors(self, call: Call) -> Float[Array, "vector embed"] | None:
        """Vectors of distances that every layer projects as it does its tokens, or None."""
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

    def bias(self, mask: Mask, heads: int, call: Call) -> Float[Array, "row own_heads query key"]:
        """-factor * slope * distance; see `alibi_slopes`."""
        with jax.named_scope("position"):
            slopes = call.layout.own(jnp.asarray(self.factor * alibi_slopes(heads)), "heads", 0)
            distance = jnp.abs(mask.q_positions[:, :, None] - mask.k_positions[:, None, :]).astype(jnp.float32)
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


@struct.dataclass
class RelativeBias(NoPosition):
    """A trained number for each head and bucket of distances; all layers share the table."""

    table: Weight
    config: config.RelativeBias = struct.field(pytree_node=False)

    def bias(self, mask: Mask, heads: int, call: Call) -> Float[Array, "_ own_heads query key"]:
        """Of the buckets of all distances, which lie on both sides unless the mask is causal."""
        with jax.named_scope("position"):
            buckets = bucket_of(distances(mask), self.config, two_sided=not mask.causal)
            by_distance = look_up(self.table, jnp.asarray(buckets), call).astype(jnp.float32)
            return spread(by_distance.T[None, :, None], mask)


def bucket_of(
    distance: Int[np.ndarray, "distance"], kind: config.RelativeBias, *, two_sided: bool
) -> Int[np.ndarray, "distance"]:
    """T5's buckets of distances from a key up to its query; keys that follow have the second half, or share with 0.

    In float32 as in the released code: a distance at a bucket's edge must fall on the same side.
    """
    buckets = kind.buckets // 2 if two_sided else kind.buckets
    after = np.where(distance < 0, buckets, 0) if two_sided else 0
    distance = np.abs(distance) if two_sided else np.maximum(distance, 0)
    single = buckets // 2
    share = np.log(np.maximum(distance, single).astype(np.float32) / np.float32(single))
    share = share / np.float32(math.log(kind.distance / single)) * np.float32(buckets - single)
    grown = np.minimum(single + share.astype(int), buckets - 1)
    return after + np.where(distance < single, distance, grown)


@struct.dataclass
class Disentangled(NoPosition):
    """A trained vector for each bucket of distances, normalized or not; all layers share the table."""

    table: Weight
    norm: Norm | None
    config: config.Disentangled = struct.field(pytree_node=False)

    def vectors(self, call: Call) -> Float[Array, "vector embed"]:
        """From the bucket of the keys that follow furthest to that of the furthest before."""
        with jax.named_scope("position"):
            x = look_up(self.table, jnp.arange(2 * self.config.buckets), call)
            return x if self.norm is None else self.norm(x)

    def buckets(self, mask: Mask) -> Int[np.ndarray, "distance"]:
        """Places in the table of all distances, in the order of `distances`."""
        return log_bucket_of(distances(mask), self.config)


def log_bucket_of(distance: Int[np.ndarray, "distance"], kind: config.Disentangled) -> Int[np.ndarray, "distance"]:
    """DeBERTa's buckets of distances from a key to its query: single ones up to half, then logarithmic.

    In float32 and in the order of the released code: a distance at a bucket's edge must fall on the same side.
    """
    half, last = kind.buckets // 2, 2 * kind.buckets - 1
    far = np.maximum(np.abs(distance), half).astype(np.float32)
    reach = np.log(np.float32((kind.distance - 1) / half))
    grown = np.ceil(np.log(far / np.float32(half)) / reach * np.float32(half - 1)) + half
    found = np.where(np.abs(distance) <= half, distance, np.sign(distance) * grown)
    return np.clip(found.astype(int) + kind.buckets, 0, last)


Position = NoPosition | Rope | Sinusoidal | Alibi | Learned | RelativeBias | Disentangled


def initial_position(
    kind: config.position.Position,
    embed: int,
    init: Initial,
    heads: int | None = None,
    norm: config.block.Norm = config.LayerNorm(),
) -> Position:
    """The position encoding of a model; a table starts with standard deviation 0.02.

    `heads` are those of every layer that takes it, or None where layers differ; `norm` is the model's kind. Raises
    UsageError for a table of heads then, and for buckets that are too few.
    """
    match kind:
        case config.NoPosition() | config.Shaw() | config.TransformerXl():
            return NoPosition()
        case config.RelativeBias(buckets, distance):
            if heads is None:
                raise UsageError("relative_bias: all layers share one table of heads; give them the same number")
            if buckets < 4 or distance <= buckets // 2:
                raise UsageError(
                    f"model.position.buckets={buckets}, distance={distance}: half of at least 4 buckets are single "
                    "distances, and the others reach further"
                )
            return RelativeBias(init.dense("table", (buckets, heads), ("positions", "heads"), std=0.02), kind)
        case config.Disentangled(buckets, distance, rows):
            if buckets < 4 or distance <= buckets // 2 + 1:
                raise UsageError(
                    f"model.position.buckets={buckets}, distance={distance}: half of at least 4 buckets are single "
                    "distances, and the others reach further"
                )
            table = init.dense("table", (2 * buckets, embed), ("positions", "embed"), std=0.02)
            return Disentangled(table, initial_norm(norm, embed, init.dtype) if rows == "normed" else None, kind)
        case config.Rope():
            return Rope(kind)
        case config.Sinusoidal():
            return Sinusoidal(kind)
        case config.Alibi(factor):
            return Alibi(factor)
        case config.Learned():
            rows = kind.offset + kind.length
            return Learned(init.dense("table", (rows, embed), ("positions", "embed"), std=0.02), kind.offset)


def heads_of(block: config.block.Layers) -> int | None:
    """Heads of every layer that has the model's positions; None where they differ."""
    match block:
        case config.Pattern(period, prefix, suffix):
            kinds = [one.attention for one in (*prefix, *period, *suffix)]
        case config.Shared(period):
            kinds = [one.attention for one in period]
        case config.Block():
            kinds = [block.attention]
    found = {kind.heads for kind in kinds if isinstance(kind.position, config.OfModel)}
    return found.pop() if len(found) == 1 else None
