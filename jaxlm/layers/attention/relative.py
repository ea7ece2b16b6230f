"""Positions that live in a layer's attention: queries meet distances as they meet keys."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers import rope
from jaxlm.layers.attention.distances import Content, distances
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.contracts import Call
from jaxlm.layers.initial import Initial
from jaxlm.layers.products import trailing
from jaxlm.layers.projection import Weight, look_up, project
from jaxlm.parallel.layout import Axes

Heads = Float[Array, "row query heads head"]


@struct.dataclass
class Shaw:
    """Trained vectors of clipped distances (Shaw et al. 2018, arXiv:1803.02155, section 3.2)."""

    keys: Weight
    values: Weight | None
    clip: int = struct.field(pytree_node=False)

    def __call__(self, q: Heads, mask: Mask, call: Call) -> tuple[Heads, Content]:
        """The queries as they are, and what distances add to attention."""
        with jax.named_scope("position"):
            rows = jnp.arange(vectors(self.clip, mask.causal))
            keys = look_up(self.keys, rows, call)[:, None]
            values = None if self.values is None else look_up(self.values, rows, call)
        return q, Content(q, keys, values, self.clip)


def vectors(clip: int, causal: bool) -> int:
    """Clipped distances: one side of them, or two, and none at all."""
    return clip + 1 if causal else 2 * clip + 1


@struct.dataclass
class TransformerXl:
    """Projected sinusoids of distances (Dai et al. 2019, arXiv:1901.02860, section 3.3).

    (q + u) k + (q + v) W R, with u = `content_bias`, v = `distance_bias`, W = `key` and R the sinusoids, sines
    before cosines as in the released code. Layers do not share u and v ("untie_r" there).
    """

    key: Weight
    content_bias: Float[Array, "heads head"]
    distance_bias: Float[Array, "heads head"]
    embed: int = struct.field(pytree_node=False)

    def __call__(self, q: Heads, mask: Mask, call: Call) -> tuple[Heads, Content]:
        """The queries that meet keys, and what distances add to attention."""
        with jax.named_scope("position"):
            radians = rope.frequencies(10_000.0, self.embed)
            angles = jnp.asarray(distances(mask), jnp.float32)[None, :, None] * radians.reshape(1, 1, -1)
            waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1).astype(q.dtype)
        # Once for all rows: neither their keys of dropout nor their choice of an adapter concern it.
        (keys,) = project(self.key, waves, "rpe,ehd->rphd", call)
        return q + trailing(self.content_bias, q), Content(q + trailing(self.distance_bias, q), keys)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf of its own."""
        return {"content_bias": ("heads", "head"), "distance_bias": ("heads", "head")}


Relative = Shaw | TransformerXl


def initial_relative(
    position: config.position.Position, kind: config.Attention, embed: int, causal: bool, init: Initial
) -> Relative | None:
    """What a model's positions, or this layer's own, have in a layer's attention; None for most.

    Vectors of distances start with standard deviation 0.02, biases at zero. Raises UsageError for sinusoids of odd
    features, and for disentangled attention where it is not defined.
    """
    match position if isinstance(kind.position, config.OfModel) else kind.position:
        case config.Shaw(clip, which):
            table = (vectors(clip, causal), kind.head), ("positions", "head")
            values = init.dense("values", *table, std=0.02) if which == "keys_and_values" else None
            return Shaw(init.dense("keys", *table, std=0.02), values, clip)
        case config.Disentangled():
            if causal or kind.heads != kind.kv_heads:
                raise UsageError(
                    f"disentangled: it is for encoders with as many keys as queries, not for heads={kind.heads}, "
                    f"kv_heads={kind.kv_heads}" + (" of a decoder" if causal else "")
                )
            return None
        case config.TransformerXl():
            if embed % 2:
                raise UsageError(f"transformer_xl: sinusoids fill pairs of features: model.embed={embed} is odd")
            key = init.dense("key", (embed, kind.kv_heads, kind.head), ("embed", "kv_heads", "head"))
            biases = (jnp.zeros((kind.heads, kind.head), init.dtype) for _ in range(2))
            return TransformerXl(key, *biases, embed)
        case _:
            return None
