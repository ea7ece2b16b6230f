"""One layer of a transformer: attention, cross-attention if there is a memory, and MLP, joined by the wiring."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers import cache as caches
from jaxlm.layers.attention.module import Attention, initial_attention
from jaxlm.layers.attention.relative import initial_relative
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
Branch = Callable[[Hidden], Hidden]


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
    shared: bool = struct.field(pytree_node=False, default=False)
    """Whether tokens that all documents see are among them: see `layers.attention.mask.Mask`."""

    @classmethod
    def of(
        cls,
        tokens: Tokens,
        position: Position,
        call: Call,
        *,
        memory: Memory | None = None,
        lengths: Array | None = None,
        shared: bool = False,
    ) -> Context:
        """Of a device's own tokens and memory."""
        if memory is not None:
            memory = call.layout.enter(dataclasses.replace(memory, terms={}))
        return cls(tokens, position, memory, lengths, call.layout.enter(tokens), shared)

    def by_row(self) -> PyTree:
        """The arrays that begin with the rows."""
        return self.tokens, self.memory, self.lengths, self.joined

    def of_rows(self, rows: PyTree) -> Context:
        """The context of some rows, given what `by_row` returns for them."""
        tokens, memory, lengths, joined = rows
        return dataclasses.replace(self, tokens=tokens, memory=memory, lengths=lengths, joined=joined)


@struct.dataclass
class Block:
    """Attention and MLP with their norms; `cross` in an encoder-decoder's decoder, `*_post_norm` in a sandwich."""

    attention: Attention
    attention_norm: Norm | None
    mlp: Mlp | Moe
    mlp_norm: Norm | None
    cross: Attention | None
    cross_norm: Norm | None
    wiring: config.block.Wiring = struct.field(pytree_node=False)
    causal: bool = struct.field(pytree_node=False)
    dropout: float = struct.field(pytree_node=False)
    attention_post_norm: Norm | None = None
    mlp_post_norm: Norm | None = None
    cross_post_norm: Norm | None = None
    cache: config.quantization.Cache = struct.field(pytree_node=False, default="model")

    def __call__(
        self, x: Hidden, context: Context, call: Call, cache: caches.Block | None, key: RowKeys | None
    ) -> tuple[Hidden, caches.Block | None, Report]:
        """The residual stream after this layer, the layer's new cache, its taps and terms."""
        tokens, saved = context.tokens, cache or caches.Block(None)
        new, taps, terms = {}, {}, {}

        def attention(y: Hidden) -> Hidden:
            taps.update(tapped(call, **{"attention.query": y}))
            y, new["attention"], inner = self.attention(
                y,
                context.joined,
                context.position,
                call,
                causal=self.causal,
                cache=saved.attention,
                lengths=context.lengths,
                shared=context.shared,
                key=at(key, "attention"),
            )
            taps.update(inner | tapped(call, attention=y))
            return dropout(y, self.dropout, at(key, "attention.dropout"), call.layout)

        def cross(y: Hidden) -> Hidden:
            taps.update(tapped(call, **{"cross.query": y}))
            y, new["cross"], inner = self.cross.cross(
                y, context.joined, context.memory, call, cache=saved.cross, key=at(key, "cross")
            )
            taps.update(inner | tapped(call, cross=y))
            return dropout(y, self.dropout, at(key, "cross.dropout"), call.layout)

        def mlp(y: Hidden) -> Hidden:
            taps.update(tapped(call, **{"mlp.up": y}))
            more = {"key": at(key, "mlp"), "adapters": tokens.adapters}
            match self.mlp:
                case Moe():
                    y, report = self.mlp(y, tokens, call, **more)
                case _:
                    y, report = self.mlp(y, call, **more)
            taps.update(report.taps | tapped(call, mlp=y))
            terms.update(report.terms)
            return dropout(y, self.dropout, at(key, "mlp.dropout"), call.layout)

        match self.wiring:
            case config.Parallel() | config.ParallelTwoNorms():
                x = parallel(x, (self.attention_norm, self.mlp_norm), (attention, mlp), call)
            case _:
                x = self._residual("attention", x, attention, call)
                if self.cross is not None:
                    x = self._residual("cross", x, cross, call)
                x = self._residual("mlp", named("middle", x), mlp, call)
        x = call.layout.constrain(x, ("row", "pos", "features"))
        taps.update(tapped(call, residual=x))
        return x, None if cache is None else caches.Block(**new), Report(taps, terms)

    def _residual(self, name: str, x: Hidden, branch: Branch, call: Call) -> Hidden:
        norms = getattr(self, f"{name}_norm"), getattr(self, f"{name}_post_norm")
        return residual(self.wiring, x, norms, branch, call)

    def empty_cache(self, rows: int, length: int, dtype: str) -> caches.Block:
        """No tokens yet; the memory's keys and values are added by the first call."""
        kind = self.attention.config
        size, prefix = (rows, length, kind.kv_heads, kind.head), self.attention.prefix
        match self.cache:
            case "int8" if prefix is not None:
                raise UsageError("quantization.cache=int8 with a trained prefix of keys: leave it at model")
            case "int8":
                return caches.Block(caches.Int8.empty(*size))
            case "model" if prefix is not None:
                return caches.Block(prefix.written(caches.Dense.empty(*size, dtype, prefix.length)))
            case "model":
                return caches.Block(caches.Dense.empty(*size, dtype))


def residual(
    wiring: config.block.Wiring, x: Hidden, norms: tuple[Norm | None, Norm | None], branch: Branch, call: Call
) -> Hidden:
    """Add a branch to the residual stream; the second norm is a sandwich's, after the branch."""
    barrier, (norm, post_norm) = call.layout.barrier, norms
    match wiring:
        case config.PreNorm() | config.NormedInput():
            return x + barrier(branch(x if norm is None else norm(x)))
        case config.PostNorm():
            return norm(x + barrier(branch(x)))
        case config.ResPostNorm():
            return x + norm(barrier(branch(x)))
        case config.Sandwich():
            return x + post_norm(barrier(branch(norm(x))))


def parallel(x: Hidden, norms: tuple[Norm, Norm | None], branches: tuple[Branch, Branch], call: Call) -> Hidden:
    """Add two branches of the same residual stream; without a second norm the first is of both."""
    first = norms[0](x)
    second = first if norms[1] is None else norms[1](x)
    added = [branch(y) for branch, y in zip(branches, (first, second), strict=True)]
    return x + call.layout.barrier(added[0] + added[1])


def initial_block(
    kind: config.Block,
    model: config.Decoder | config.Encoder | config.EncoderDecoder,
    init: Initial,
    *,
    causal: bool,
    cross: bool,
    scale: float,
) -> Block:
    """A block of `model`; `scale` multiplies the kernels that write to the residual stream.

    Raises UsageError for cross-attention in parallel branches, and for what `initial_attention` does not take.
    """
    wiring = kind.wiring
    if cross and isinstance(wiring, config.Parallel | config.ParallelTwoNorms):
        raise UsageError(f"block.wiring={type(wiring).__name__}: cross-attention has no place in it; use pre_norm")

    def norm(wanted: bool = True) -> Norm | None:
        return initial_norm(model.norm, model.embed, init.dtype) if wanted else None

    sandwich = isinstance(wiring, config.Sandwich)
    attend, own = (kind.attention, model.embed, model.norm), init.at("attention")
    position = initial_relative(model.position, kind.attention, model.embed, causal, own.at("position"))
    return Block(
        attention=initial_attention(*attend, own, scale, position),
        attention_norm=norm(not isinstance(wiring, config.NormedInput)),
        mlp=_initial_mlp(kind.mlp, model.embed, init.at("mlp"), scale),
        mlp_norm=norm(not isinstance(wiring, config.Parallel)),
        cross=initial_attention(*attend, init.at("cross"), scale) if cross else None,
        cross_norm=norm(cross),
        wiring=wiring,
        causal=causal,
        dropout=model.dropout,
        attention_post_norm=norm(sandwich),
        mlp_post_norm=norm(sandwich),
        cross_post_norm=norm(sandwich and cross),
    )


def _initial_mlp(kind: config.block.Mlp, embed: int, init: Initial, scale: float) -> Mlp | Moe:
    match kind:
        case config.Moe():
            return initial_moe(kind, embed, init, scale)
        case _:
            return initial_mlp(kind, embed, init, scale)


def initial_last_norm(
    model: config.Decoder | config.Encoder | config.EncoderDecoder, layers: int, init: Initial
) -> Norm | None:
    """The norm after a stack of so many layers; None where the last layer ends with its own."""
    if config.block.ends_normed(model.block, layers):
        return None
    return initial_norm(model.norm, model.embed, init.dtype)
