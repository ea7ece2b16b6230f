"""One layer of a transformer: attention, cross-attention if there is a memory, and MLP, joined by the wiring."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxlm import config
from jaxlm.layers import cache as caches
from jaxlm.layers.attention.module import Attention, initial_attention
from jaxlm.layers.contracts import Call, Memory, RowKeys, Tokens
from jaxlm.layers.initial import Initial
from jaxlm.layers.mlp import Mlp, initial_mlp
from jaxlm.layers.moe.module import Moe, initial_moe
from jaxlm.layers.norms import Norm, initial_norm
from jaxlm.layers.positions import Position
from jaxlm.layers.random import at, dropout
from jaxlm.layers.remat import named
from jaxlm.layers.taps import Report, tapped

Hidden = Float[Array, "row pos embed"]


@struct.dataclass
class Context:
    """What every layer of a stack is given."""

    tokens: Tokens
    position: Position
    memory: Memory | None
    lengths: Array | None
    """Tokens of each row already in the cache."""
    joined: Tokens
    """The tokens of all devices that attend together, and in `memory` theirs too."""

    @classmethod
    def of(
        cls,
        tokens: Tokens,
        position: Position,
        call: Call,
        *,
        memory: Memory | None = None,
        lengths: Array | None = None,
    ) -> Context:
        """Of a device's own tokens and memory."""
        if memory is not None:
            memory = call.layout.enter(dataclasses.replace(memory, terms={}))
        return cls(tokens, position, memory, lengths, call.layout.enter(tokens))

    def by_row(self) -> PyTree:
        """The arrays that begin with the rows."""
        return self.tokens, self.memory, self.lengths, self.joined

    def of_rows(self, rows: PyTree) -> Context:
        """The context of some rows, given what `by_row` returns for them."""
        tokens, memory, lengths, joined = rows
        return dataclasses.replace(self, tokens=tokens, memory=memory, lengths=lengths, joined=joined)


@struct.dataclass
class Block:
    """Attention and MLP with their norms; `cross` in an encoder-decoder's decoder."""

    attention: Attention
    attention_norm: Norm
    mlp: Mlp | Moe
    mlp_norm: Norm
    cross: Attention | None
    cross_norm: Norm | None
    wiring: config.PreNorm | config.PostNorm = struct.field(pytree_node=False)
    causal: bool = struct.field(pytree_node=False)
    dropout: float = struct.field(pytree_node=False)

    def __call__(
        self, x: Hidden, context: Context, call: Call, cache: caches.Block | None, key: RowKeys | None
    ) -> tuple[Hidden, caches.Block | None, Report]:
        """The residual stream after this layer, the layer's new cache, its taps and terms."""
        tokens, saved = context.tokens, cache or caches.Block(None)
        new, taps, terms = {}, {}, {}

        def attention(y: Hidden) -> Hidden:
            y, new["attention"] = self.attention(
                y,
                context.joined,
                context.position,
                call,
                causal=self.causal,
                cache=saved.attention,
                lengths=context.lengths,
                key=at(key, "attention"),
            )
            taps.update(tapped(call, attention=y))
            return dropout(y, self.dropout, at(key, "attention.dropout"), call.layout)

        def cross(y: Hidden) -> Hidden:
            y, new["cross"] = self.cross.cross(
                y, context.joined, context.memory, call, cache=saved.cross, key=at(key, "cross")
            )
            taps.update(tapped(call, cross=y))
            return dropout(y, self.dropout, at(key, "cross.dropout"), call.layout)

        def mlp(y: Hidden) -> Hidden:
            more = {"key": at(key, "mlp"), "adapters": tokens.adapters}
            match self.mlp:
                case Moe():
                    y, report = self.mlp(y, tokens, call, **more)
                    taps.update(report.taps)
                    terms.update(report.terms)
                case _:
                    y = self.mlp(y, call, **more)
            taps.update(tapped(call, mlp=y))
            return dropout(y, self.dropout, at(key, "mlp.dropout"), call.layout)

        x = residual(self.wiring, x, self.attention_norm, attention, call)
        if self.cross is not None:
            x = residual(self.wiring, x, self.cross_norm, cross, call)
        x = residual(self.wiring, named("middle", x), self.mlp_norm, mlp, call)
        x = call.layout.constrain(x, ("row", "pos", "features"))
        taps.update(tapped(call, residual=x))
        return x, None if cache is None else caches.Block(**new), Report(taps, terms)

    def empty_cache(self, rows: int, length: int, dtype: str) -> caches.Block:
        """No tokens yet; the memory's keys and values are added by the first call."""
        kind = self.attention.config
        return caches.Block(caches.Dense.empty(rows, length, kind.kv_heads, kind.head, dtype))


def residual(
    wiring: config.PreNorm | config.PostNorm, x: Hidden, norm: Norm, branch: Callable[[Hidden], Hidden], call: Call
) -> Hidden:
    """Add a branch to the residual stream."""
    barrier = call.layout.barrier
    match wiring:
        case config.PreNorm():
            return x + barrier(branch(norm(x)))
        case config.PostNorm():
            return norm(x + barrier(branch(x)))


def initial_block(
    kind: config.Block,
    model: config.Decoder | config.Encoder | config.EncoderDecoder,
    init: Initial,
    *,
    causal: bool,
    cross: bool,
    scale: float,
) -> Block:
    """A block of `model`; `scale` multiplies the kernels that write to the residual stream."""

    def norm() -> Norm:
        return initial_norm(model.norm, model.embed, init.dtype)

    attend = (kind.attention, model.embed, model.norm)
    return Block(
        attention=initial_attention(*attend, init.at("attention"), scale),
        attention_norm=norm(),
        mlp=_initial_mlp(kind.mlp, model.embed, init.at("mlp"), scale),
        mlp_norm=norm(),
        cross=initial_attention(*attend, init.at("cross"), scale) if cross else None,
        cross_norm=norm() if cross else None,
        wiring=kind.wiring,
        causal=causal,
        dropout=model.dropout,
    )


def _initial_mlp(kind: config.model.Mlp, embed: int, init: Initial, scale: float) -> Mlp | Moe:
    match kind:
        case config.Moe():
            return initial_moe(kind, embed, init, scale)
        case _:
            return initial_mlp(kind, embed, init, scale)
