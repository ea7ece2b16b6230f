"""The attention half of a block: projections around the one attention call."""

from __future__ import annotations

import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers import cache as caches
from jaxlm.layers.attention.call import attend, scores
from jaxlm.layers.attention.distances import Content, Disentangled
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.attention.norms import HeadNorm, initial_head_norm, normed
from jaxlm.layers.attention.relative import Relative
from jaxlm.layers.contracts import Call, Memory, RowKeys, Tokens
from jaxlm.layers.initial import Initial
from jaxlm.layers.positions import Position, Rope
from jaxlm.layers.projection import Weight, project
from jaxlm.layers.taps import tapped
from jaxlm.layers.virtual import Prefix

Hidden = Float[Array, "row pos embed"]


@struct.dataclass
class Attention:
    """Grouped-query attention (arXiv:2305.13245), over the tokens themselves or over a memory."""

    query: Weight
    key: Weight
    value: Weight
    out: Weight
    query_norm: HeadNorm | None
    key_norm: HeadNorm | None
    config: config.Attention = struct.field(pytree_node=False)
    position: Relative | None = None
    """Of positions that queries meet as they meet keys, what is this layer's own."""
    prefix: Prefix | None = None
    """Keys and values that every token of a row sees."""

    def __call__(
        self,
        x: Hidden,
        tokens: Tokens,
        position: Position,
        call: Call,
        *,
        causal: bool,
        cache: caches.KeyValues | None = None,
        lengths: Array | None = None,
        shared: bool = False,
        key: RowKeys | None = None,
    ) -> tuple[Hidden, caches.KeyValues | None, dict[str, Array]]:
        """Mix the tokens of each segment; with a cache, the new tokens also see the ones before them.

        `tokens` are those of all devices that are joined, as in `layers.block.Context`; x is of a device's own.
        Returns the mix, the new cache, and taps.
        """
        more, x = {"key": key, "adapters": tokens.adapters}, call.layout.enter(x)
        own = self.config.position
        position = Rope(own) if isinstance(own, config.Rope) else position
        q = normed(self.query_norm, self._heads(self.query, x, call, "heads", **more), call)
        k, v = (self._heads(weight, x, call, "kv_heads", **more) for weight in (self.key, self.value))
        k = normed(self.key_norm, k, call)
        taps = tapped(call, queries=q, keys=k, values=v)
        q, k = position.rotate(q, tokens.positions), position.rotate(k, tokens.positions)
        seen = caches.View(k, v, tokens.positions, tokens.segments)
        if cache is not None:
            cache = cache.append(k, v, tokens.positions, tokens.segments, lengths)
            seen = cache.view()
        elif self.prefix is not None:
            seen = self.prefix.before(seen, call)
        shared = shared or seen.shared
        mask = Mask(
            tokens.positions,
            seen.positions,
            tokens.segments,
            seen.segments,
            causal,
            self.config.window,
            aligned=cache is None and not shared,
            prefix=tokens.prefix if causal else None,
            shared=shared,
        )
        bias, content = position.bias(mask, self.config.heads, call), None
        if self.prefix is not None and bias is not None:
            bias = self.prefix.unbiased(bias)
        if self.position is not None:
            q, content = self.position(q, mask, call)
        elif (vectors := position.vectors(call)) is not None:
            content = self._disentangled(q, k, vectors, position.buckets(mask), call)
        y, mixed = self._mix(q, seen, mask, call, bias=bias, content=content, **more)
        taps |= tapped(call, **{"attention.out": mixed})
        if "scores" in call.taps:
            taps["scores"] = scores(q, seen.keys, mask=mask, bias=bias, content=content, call=call, **self._scaling)
        return y, cache, taps

    @property
    def _scaling(self) -> dict[str, float | None]:
        """What becomes of products of queries and keys."""
        return {"softcap": self.config.softcap, "scale": self.config.scale}

    def _disentangled(
        self,
        q: Float[Array, "row joined heads head"],
        k: Float[Array, "row joined heads head"],
        vectors: Float[Array, "vector embed"],
        buckets: Int[np.ndarray, "distance"],
        call: Call,
    ) -> Disentangled:
        """Vectors of distances as this layer's queries and keys: once for all rows, so without their adapters."""
        queries, keys = (project(one, vectors[None], "rpe,ehd->rphd", call)[0] for one in (self.query, self.key))
        return Disentangled(q, k, keys, queries, buckets)

    def cross(
        self,
        x: Hidden,
        tokens: Tokens,
        memory: Memory | None,
        call: Call,
        *,
        cache: caches.KeyValues | None = None,
        key: RowKeys | None = None,
    ) -> tuple[Hidden, caches.KeyValues, dict[str, Array]]:
        """Attend to the whole memory of the row; its keys and values, computed once, are the cache. Also taps."""
        more, x = {"key": key, "adapters": tokens.adapters}, call.layout.enter(x)
        q = normed(self.query_norm, self._heads(self.query, x, call, "heads", **more), call)
        if cache is None:
            k, v = (
                self._heads(weight, memory.hidden, call, "kv_heads", **more) for weight in (self.key, self.value)
            )
            k = normed(self.key_norm, k, call)
            cache = caches.Dense.full(caches.View(k, v, memory.positions, memory.segments))
        seen = cache.view()
        mask = Mask(tokens.positions, seen.positions, tokens.segments, seen.segments, causal=False)
        y, mixed = self._mix(q, seen, mask, call, **more)
        return y, cache, tapped(call, **{"cross.out": mixed})

    def _heads(
        self, weight: Weight, x: Hidden, call: Call, axis: str, *, key: RowKeys | None, adapters: Array | None
    ) -> Float[Array, "row pos heads head"]:
        y = project(weight, x, "rpe,ehd->rphd", call, key=key, adapters=adapters)
        return call.layout.constrain(y, ("row", "pos", axis, "head"))

    def _mix(
        self,
        q: Float[Array, "row joined heads head"],
        seen: caches.View,
        mask: Mask,
        call: Call,
        *,
        bias: Array | None = None,
        content: Content | Disentangled | None = None,
        key: RowKeys | None,
        adapters: Array | None,
    ) -> tuple[Hidden, Float[Array, "row joined heads head"]]:
        """The mix, and the heads that it is projected from."""
        keys, values = seen.keys.astype(q.dtype), seen.values.astype(q.dtype)
        mixed = attend(q, keys, values, mask=mask, bias=bias, content=content, call=call, **self._scaling)
        mixed = call.layout.constrain(mixed, ("row", "pos", "heads", "head"))
        return project(self.out, mixed, "rphd,hde->rpe", call, key=key, adapters=adapters), mixed


def initial_attention(
    kind: config.Attention,
    embed: int,
    norm: config.block.Norm,
    init: Initial,
    scale: float,
    position: Relative | None = None,
) -> Attention:
    """Kernels of variance 1 / inputs; the last one times `scale`^2. `norm` is that of queries and keys, if any.

    Where scores are divided by less than sqrt(head), queries begin as much smaller: they are of variance 1 (T5).
    Raises UsageError when heads do not group, and for a norm that is not defined over all heads.
    """
    if kind.heads % kind.kv_heads:
        raise UsageError(f"attention.heads={kind.heads} is not a multiple of attention.kv_heads={kind.kv_heads}")
    query = (embed, kind.heads, kind.head), ("embed", "heads", "head")
    shared = (embed, kind.kv_heads, kind.head), ("embed", "kv_heads", "head")
    out = (kind.heads, kind.head, embed), ("heads", "head", "embed")
    bias = kind.bias != "none"
    return Attention(
        init.dense("query", *query, scale=1 / max(1.0, (kind.scale or 0.0) * kind.head**0.5), bias=bias),
        init.dense("key", *shared, bias=bias),
        init.dense("value", *shared, bias=bias),
        init.dense("out", *out, inputs=2, scale=scale, bias=kind.bias == "all"),
        initial_head_norm(kind.qk_norm, norm, (kind.heads, kind.head), ("heads", "head"), init.dtype),
        initial_head_norm(kind.qk_norm, norm, (kind.kv_heads, kind.head), ("kv_heads", "head"), init.dtype),
        kind,
        position,
    )
