"""What decoding remembers: one cache a layer, never stacked, and how many tokens each row holds.

A stacked cache carried through `lax.scan` is copied whole for every token; separate ones are updated in place.
Every slot carries the position and the segment of its token, so that masks follow from the content of the cache
and not from its layout: padding (segment 0) is never seen, and is overwritten by the tokens that come after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
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

    def view(self) -> View:
        """The tokens as attention reads them."""
        ...


@struct.dataclass
class View:
    """Tokens as attention reads them; every kind of cache can show itself like this."""

    keys: Float[Array, "row slot kv_heads head"]
    values: Float[Array, "row slot kv_heads head"]
    positions: Int[Array, "row slot"]
    segments: Int[Array, "row slot"]
    shared: bool = struct.field(pytree_node=False, default=False)
    """Whether some are seen by all documents: see `layers.attention.mask.Mask`."""


@struct.dataclass
class Dense:
    """Keys and values of all tokens of one layer.

    They lie as the two products of attention take them, each summing over its last dimension; any other order has
    the CPU transpose the whole cache for every token.
    """

    keys: Float[Array, "row kv_heads slot head"]
    values: Float[Array, "row kv_heads head slot"]
    positions: Int[Array, "row slot"]
    segments: Int[Array, "row slot"]
    first: int = struct.field(pytree_node=False, default=0)
    """The slot of a row's first token: those before it are of keys that all its documents see."""

    @classmethod
    def empty(cls, rows: int, length: int, kv_heads: int, head: int, dtype: str, first: int = 0) -> Dense:
        """No tokens yet, and room for `length` from slot `first` on."""
        length += first
        keys, values = (rows, kv_heads, length, head), (rows, kv_heads, head, length)
        return cls(*_zeros((keys, dtype), (values, dtype), *[((rows, length), "int32")] * 2), first)

    @classmethod
    def full(cls, view: View) -> Dense:
        """Just these tokens, without room for more."""
        keys, values = jnp.transpose(view.keys, (0, 2, 1, 3)), jnp.transpose(view.values, (0, 2, 3, 1))
        return cls(keys, values, view.positions, view.segments)

    def append(
        self,
        keys: Float[Array, "row new kv_heads head"],
        values: Float[Array, "row new kv_heads head"],
        positions: Int[Array, "row new"],
        segments: Int[Array, "row new"],
        lengths: Int[Array, "row"],
    ) -> Dense:
        """Write new tokens from slot `first + lengths` of each row on; tokens beyond the last slot are dropped."""
        lengths = lengths + self.first if self.first else lengths
        write = _writer(lengths, *positions.shape, self.positions.shape[1])
        return Dense(
            write(self.keys, keys, 1),
            write(self.values, values, 2),
            write(self.positions, positions),
            write(self.segments, segments),
            self.first,
        )

    def view(self) -> View:
        """The tokens as attention reads them; other kinds of cache unpack themselves here."""
        keys, values = jnp.transpose(self.keys, (0, 2, 1, 3)), jnp.transpose(self.values, (0, 3, 1, 2))
        return View(keys, values, self.positions, self.segments, self.first > 0)


@struct.dataclass
class Int8:
    """Keys and values of all tokens of one layer in 8 bits, in the order of `Dense`.

    Each head of each token has a scale, its largest number / 127, so that no token changes another's numbers.
    """

    keys: Int[Array, "row kv_heads slot head"]
    values: Int[Array, "row kv_heads head slot"]
    key_scales: Float[Array, "row kv_heads slot"]
    value_scales: Float[Array, "row kv_heads slot"]
    positions: Int[Array, "row slot"]
    segments: Int[Array, "row slot"]

    @classmethod
    def empty(cls, rows: int, length: int, kv_heads: int, head: int) -> Int8:
        """No tokens yet."""
        keys, values = (rows, kv_heads, length, head), (rows, kv_heads, head, length)
        scales, tokens = ((rows, kv_heads, length), "float32"), ((rows, length), "int32")
        return cls(*_zeros((keys, "int8"), (values, "int8"), scales, scales, tokens, tokens))

    def append(
        self,
        keys: Float[Array, "row new kv_heads head"],
        values: Float[Array, "row new kv_heads head"],
        positions: Int[Array, "row new"],
        segments: Int[Array, "row new"],
        lengths: Int[Array, "row"],
    ) -> Int8:
        """As `Dense.append`."""
        write = _writer(lengths, *positions.shape, self.positions.shape[1])
        (keys, key_scales), (values, value_scales) = _rounded(keys), _rounded(values)
        return Int8(
            write(self.keys, keys, 1),
            write(self.values, values, 2),
            write(self.key_scales, key_scales, 1),
            write(self.value_scales, value_scales, 1),
            write(self.positions, positions),
            write(self.segments, segments),
        )

    def view(self) -> View:
        """The tokens in float32."""
        keys = self.keys.astype(jnp.float32) * self.key_scales[..., None]
        values = self.values.astype(jnp.float32) * self.value_scales[:, :, None]
        keys, values = jnp.transpose(keys, (0, 2, 1, 3)), jnp.transpose(values, (0, 3, 1, 2))
        return View(keys, values, self.positions, self.segments)


def _zeros(*arrays: tuple[tuple[int, ...], str]) -> list[Array]:
    """Arrays of their own, so that the cache can be donated."""
    return [jnp.zeros(shape, dtype) for shape, dtype in arrays]


def _writer(lengths: Int[Array, "row"], count: int, new: int, length: int) -> Callable[..., Array]:
    """A function that writes [row, new, ...] into [row, ..., slot, ...], its dimensions before the slots given."""
    # XLA turns the write of a lone token into a slice update, which it then fuses into every reader: on the
    # CPU each reads a copy of the whole cache. A second token, beyond the last slot, keeps the write in place.
    extra = 1 if count * new == 1 else 0
    rows = jnp.arange(count)[:, None]
    slots = lengths[:, None] + jnp.arange(new)[None]
    slots = jnp.concatenate([slots, slots[:, :extra] + length], axis=1)

    def write(old: Array, tokens: Array, before: int = 0) -> Array:
        tokens = jnp.concatenate([tokens, tokens[:, :extra]], axis=1).astype(old.dtype)
        return old.at[(rows, *[slice(None)] * before, slots)].set(tokens, mode="drop", unique_indices=True)

    return write


def _rounded(x: Float[Array, "row new kv_heads head"]) -> tuple[Array, Array]:
    """Codes, and the scale of each head; as `quantize.grid` has symmetric integers of 8 bits."""
    x = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(x), axis=-1) * np.float32(1 / 127)
    scale = jnp.where(scale >= jnp.finfo(jnp.float32).tiny, scale, jnp.float32(1.0))
    return jnp.clip(jnp.round(x / scale[..., None]), -128, 127).astype(jnp.int8), scale


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


@struct.dataclass
class Wkv:
    """A layer's whole past in RWKV-5, 6 and 7: the last inputs of its two mixes, and a matrix for each head."""

    time_input: Float[Array, "row embed"]
    channel_input: Float[Array, "row embed"]
    state: Float[Array, "row heads key value"]
    segment: Int[Array, "row"]


LayerCache = Block | Wkv4 | Wkv


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
