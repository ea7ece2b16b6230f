"""What the versions of RWKV share: neighbors, token shifts, channel mixes, layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jaxlm.layers import cache as caches
from jaxlm.layers.contracts import Call, RowKeys, Tokens
from jaxlm.layers.norms import LayerNorm
from jaxlm.layers.products import trailing
from jaxlm.layers.projection import Weight, project
from jaxlm.layers.random import at, dropout
from jaxlm.layers.taps import Report, tapped
from jaxlm.parallel.layout import Axes

Hidden = Float[Array, "row pos embed"]
Joined = Float[Array, "row joined embed"]
Features = Float[Array, "row joined features"]
"""Some of the features of each token: a device's own."""
Heads = Float[Array, "row joined heads head"]

Taps = dict[str, Array]

HEAD_NORM = 64e-5
"""Epsilon of the norm of a head's features: 1e-5 for features that RWKV-5 divides by 8 beforehand."""


@struct.dataclass
class Neighbors:
    """Of each token, the one before it in its document; padding is none.

    In training, documents have no padding inside. A cache may be given any: then `place` tells where the token
    before is, -1 for the last one that the cache has seen.
    """

    starts: Bool[Array, "row pos"]
    """Whether a document begins: its segment differs from that of the last token that was not padding."""
    padding: Bool[Array, "row pos"]
    place: Int[Array, "row pos"] | None = None

    @classmethod
    def of(cls, segments: Int[Array, "row pos"], last: Int[Array, "row"] | None) -> Neighbors:
        """`last` is the cache's last segment, None without a cache."""
        real = segments > 0
        if last is None:
            before = jnp.pad(segments[:, :-1], ((0, 0), (1, 0)))
            return cls((segments != before) & real, ~real)
        places = jnp.where(real, jnp.arange(segments.shape[1])[None], -1)
        place = jnp.pad(jax.lax.cummax(places, axis=1)[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
        before = jnp.take_along_axis(segments, jnp.maximum(place, 0), axis=1)
        before = jnp.where(place < 0, last[:, None], before)
        return cls((segments != before) & real, ~real, place)

    def before(self, x: Joined, last: Float[Array, "row embed"] | None) -> Joined:
        """What the token before each has in place of its own; zero at a document's start."""
        if self.place is None:
            shifted = jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))
        else:
            shifted = jnp.take_along_axis(x, jnp.maximum(self.place, 0)[..., None], axis=1)
            shifted = jnp.where(self.place[..., None] < 0, last[:, None].astype(x.dtype), shifted)
        return jnp.where(self.starts[..., None], 0, shifted)

    def last(self, x: Array, old: Array) -> Array:
        """What the row's last token has; the old where there is none."""
        places = jnp.where(self.padding, -1, jnp.arange(self.padding.shape[1])[None])
        place = jnp.max(places, axis=1)
        new = x[jnp.arange(x.shape[0]), jnp.maximum(place, 0)].astype(old.dtype)
        return jnp.where((place < 0).reshape(-1, *(1,) * (new.ndim - 1)), old, new)


@struct.dataclass
class Shift:
    """Each feature is a mix of this token's and the token's before it (arXiv:2305.13048, section 3.1.1)."""

    mix: Float[Array, "embed"]

    def __call__(self, x: Joined, before: Joined) -> Joined:
        """mix * x + (1 - mix) * before."""
        mix = trailing(self.mix, x)
        return mix * x + (1 - mix) * before

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"mix": ("features",)}


@struct.dataclass
class Lerp:
    """The same, by the share of the token before (arXiv:2404.05892)."""

    mix: Float[Array, "embed"]

    def __call__(self, x: Joined, before: Joined) -> Joined:
        """x + mix * (before - x)."""
        return x + trailing(self.mix, x) * (before - x)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"mix": ("features",)}


@struct.dataclass
class LowRank:
    """A few features of each token, spread over all: base + f(x narrow) wide."""

    base: Float[Array, "features"] | None
    narrow: Weight
    wide: Weight

    def __call__(self, x: Joined, call: Call, f: Callable[[Array], Array] = lambda x: x) -> Features:
        """With the base in float32, without it in x's dtype."""
        y = project(self.wide, f(project(self.narrow, x, "rpe,ek->rpk", call)), "rpk,kf->rpf", call)
        return y if self.base is None else trailing(self.base, y.astype(jnp.float32)) + y.astype(jnp.float32)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"base": ("heads",)}


@struct.dataclass
class HeadNorm:
    """A LayerNorm for each head (Wu and He 2018, arXiv:1803.08494, with as many groups as heads)."""

    scale: Float[Array, "features"]
    bias: Float[Array, "features"]

    def __call__(self, x: Heads) -> Heads:
        """Of float32 features."""
        centered = x - jnp.mean(x, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centered), axis=-1, keepdims=True) + HEAD_NORM)
        return centered * inverse * of_heads(self.scale, x) + of_heads(self.bias, x)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"scale": ("heads",), "bias": ("heads",)}


def split(x: Features, size: int) -> Heads:
    """Heads of so many features."""
    return x.reshape(*x.shape[:-1], -1, size)


def of_heads(vector: Float[Array, "features"], x: Heads) -> Float[Array, "1 1 heads head"]:
    """One number for each feature of x, float32."""
    return vector.astype(jnp.float32).reshape(1, 1, *x.shape[2:])


def squared_relu(up: Weight, down: Weight, x: Joined, call: Call, part: str = "") -> tuple[Hidden, Taps]:
    """relu(x up)^2 down, and taps of what both are applied to, named by the part of a layer that they are."""
    hidden = project(up, x, "rpe,em->rpm", call)
    hidden = call.layout.constrain(jnp.square(jax.nn.relu(hidden)), ("row", "pos", "mlp"))
    return project(down, hidden, "rpm,me->rpe", call), tapped(call, **{f"{part}up": x, f"{part}down": hidden})


def sigmoid_gate(receptance: Weight, x: Joined, call: Call) -> Hidden:
    """sigmoid(x receptance) of a device's own tokens."""
    gate = jax.nn.sigmoid(project(receptance, x, "rpe,ef->rpf", call))
    # some features of all tokens for all features of some
    return call.layout.exchange(gate, "heads", split=1, join=2)


@struct.dataclass
class ChannelMix:
    """A position-wise layer with a gate, both of shifted tokens (RWKV-4 to 6)."""

    key_shift: Shift | Lerp
    receptance_shift: Shift | Lerp
    up: Weight
    down: Weight
    receptance: Weight

    def __call__(self, x: Joined, before: Joined, call: Call) -> tuple[Hidden, Taps]:
        """sigmoid(receptance) * relu(up)^2 down, and taps."""
        shifted = self.receptance_shift(x, before)
        gate = sigmoid_gate(self.receptance, shifted, call)
        y, taps = squared_relu(self.up, self.down, self.key_shift(x, before), call, "channel.")
        return gate * y, taps | tapped(call, **{"channel.receptance": shifted})


@struct.dataclass
class Stream:
    """The residual stream, and with it the values of the first layer, which those above mix with their own."""

    hidden: Hidden
    values: Heads


class TimeMix(Protocol):
    """What distinguishes RWKV-5, 6 and 7."""

    @property
    def heads(self) -> tuple[int, int]:
        """Number of heads, features of each."""
        ...

    def __call__(
        self,
        x: Joined,
        before: Joined,
        values: Heads | None,
        neighbors: Neighbors,
        state: Float[Array, "row heads key value"],
        call: Call,
    ) -> tuple[Hidden, Float[Array, "row heads key value"], Heads | None, Taps]:
        """The mix, the new state, what the layers above are to know of the first one's values, and taps."""
        ...


@struct.dataclass
class Layer:
    """Time mix and channel mix, each behind its norm."""

    time_norm: LayerNorm
    time: TimeMix
    channel_norm: LayerNorm
    channel: Any
    dropout: float = struct.field(pytree_node=False)

    def __call__(
        self, x: Hidden | Stream, tokens: Tokens, call: Call, cache: caches.Wkv | None, key: RowKeys | None
    ) -> tuple[Hidden | Stream, caches.Wkv | None, Report]:
        """The residual stream after this layer, the new state, and taps; `tokens` of all joined devices."""
        x, values = (x.hidden, x.values) if isinstance(x, Stream) else (x, None)
        old = self.empty_cache(x.shape[0], 0, x.dtype) if cache is None else cache
        neighbors = Neighbors.of(tokens.segments, None if cache is None else cache.segment)
        normed = call.layout.enter(self.time_norm(x))
        before = neighbors.before(normed, old.time_input)
        y, state, values, taps = self.time(normed, before, values, neighbors, old.state, call)
        x = x + dropout(y, self.dropout, at(key, "time.dropout"), call.layout)
        channel = call.layout.enter(self.channel_norm(x))
        z, more = self.channel(channel, neighbors.before(channel, old.channel_input), call)
        x = x + dropout(z, self.dropout, at(key, "channel.dropout"), call.layout)
        report = Report(taps | more | tapped(call, attention=y, mlp=z, residual=x))
        out = x if values is None else Stream(x, values)
        if cache is None:
            return out, None, report
        time, channel = neighbors.last(normed, old.time_input), neighbors.last(channel, old.channel_input)
        return out, caches.Wkv(time, channel, state, neighbors.last(tokens.segments, old.segment)), report

    def empty_cache(self, rows: int, length: int, dtype: Any) -> caches.Wkv:
        """No tokens yet; the state's size does not depend on `length`."""
        heads, head = self.time.heads
        embed = self.time_norm.scale.shape[-1]
        inputs = (jnp.zeros((rows, embed), dtype), jnp.zeros((rows, embed), dtype))
        return caches.Wkv(*inputs, jnp.zeros((rows, heads, head, head), jnp.float32), jnp.zeros(rows, jnp.int32))
