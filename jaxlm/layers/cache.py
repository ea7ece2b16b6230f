"""What decoding remembers: one cache a layer, never stacked, and how many tokens each row holds.

A stacked cache carried through `lax.scan` is copied whole for every token; separate ones are updated in place.
Every slot carries the position and the segment of its token, so that masks follow from the content of the cache
and not from its layout: padding (segment 0) is never seen, and is overwritten by the tokens that come after it.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int


@runtime_checkable
class KeyValues(Protocol):
    """One layer's keys and values, in whatever form."""

    def append(
        self,
        keys: Float[Array, "row new kv_heads head"],
        values: Float[Array, "row new kv_heads head"],
        positions: Int[Array, "row new"],
        segments: Int[Array, "row new"],
        lengths: Int[Array, "row"],
    ) -> KeyValues:
        """With new tokens from slot `lengths` of each row on."""
        ...

    def view(self) -> Dense:
        """The tokens as attention reads them."""
        ...


@struct.dataclass
class Dense:
    """Keys and values of all tokens of one layer."""

    keys: Float[Array, "row slot kv_heads head"]
    values: Float[Array, "row slot kv_heads head"]
    positions: Int[Array, "row slot"]
    segments: Int[Array, "row slot"]

    @classmethod
    def empty(cls, rows: int, length: int, kv_heads: int, head: int, dtype: str) -> Dense:
        """No tokens yet."""
        # Arrays of their own, so that the cache can be donated.
        features, tags = (rows, length, kv_heads, head), (rows, length)
        return cls(
            jnp.zeros(features, dtype),
            jnp.zeros(features, dtype),
            jnp.zeros(tags, jnp.int32),
            jnp.zeros(tags, jnp.int32),
        )

    def append(
        self,
        keys: Float[Array, "row new kv_heads head"],
        values: Float[Array, "row new kv_heads head"],
        positions: Int[Array, "row new"],
        segments: Int[Array, "row new"],
        lengths: Int[Array, "row"],
    ) -> Dense:
        """Write new tokens from slot `lengths` of each row on; tokens beyond the last slot are dropped."""
        rows = jnp.arange(keys.shape[0])[:, None]
        slots = lengths[:, None] + jnp.arange(keys.shape[1])[None]

        def write(old: Array, new: Array) -> Array:
            return old.at[rows, slots].set(new.astype(old.dtype), mode="drop", unique_indices=True)

        return Dense(
            write(self.keys, keys),
            write(self.values, values),
            write(self.positions, positions),
            write(self.segments, segments),
        )

    def view(self) -> Dense:
        """The tokens as attention reads them; other kinds of cache unpack themselves here."""
        return self


@struct.dataclass
class Block:
    """One decoder block's cache; `cross` is the memory's keys and values, computed once."""

    attention: KeyValues | None
    cross: KeyValues | None = None


@struct.dataclass
class Wkv4:
    """An RWKV-4 layer's whole past: the last inputs of its two mixes, and the decayed sums of its attention."""

    time_input: Float[Array, "row embed"]
    channel_input: Float[Array, "row embed"]
    numerator: Float[Array, "row embed"]
    denominator: Float[Array, "row embed"]
    exponent: Float[Array, "row embed"]
    segment: Int[Array, "row"]


LayerCache = Block | Wkv4


@struct.dataclass
class Cache:
    """Every layer's cache and the number of tokens in each row."""

    layers: tuple[LayerCache, ...]
    lengths: Int[Array, "row"]

    def advance(self, layers: tuple[LayerCache, ...], segments: Int[Array, "row new"]) -> Cache:
        """After a call: the layers' new caches, and each row longer by its new tokens that are not padding."""
        return Cache(layers, self.lengths + jnp.sum(segments > 0, axis=-1, dtype=self.lengths.dtype))

    def reorder(self, rows: Int[Array, "row"]) -> Cache:
        """The cache of other rows, as beam search needs."""
        return jax.tree.map(lambda leaf: leaf[rows], self)
