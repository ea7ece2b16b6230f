"""RWKV-4: a recurrent language model whose state has one size (Peng et al. 2023, arXiv:2305.13048)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers import cache as caches
from jaxlm.layers.contracts import Call, Memory, Output, RowKeys, Tokens
from jaxlm.layers.initial import Initial
from jaxlm.layers.norms import LayerNorm, initial_norm
from jaxlm.layers.products import trailing
from jaxlm.layers.projection import Weight, look_up, project
from jaxlm.layers.random import at, dropout
from jaxlm.layers.stack import Stack, initial_stack
from jaxlm.layers.taps import Report, tapped
from jaxlm.layers.wkv import WkvState, wkv4
from jaxlm.models import heads
from jaxlm.parallel.layout import Axes

Hidden = Float[Array, "row pos embed"]
Joined = Float[Array, "row joined embed"]


@struct.dataclass
class Shift:
    """Each feature is a mix of this token's and the token's before it (section 3.1.1)."""

    mix: Float[Array, "embed"]

    def __call__(self, x: Hidden, before: Hidden) -> Hidden:
        """mix * x + (1 - mix) * before."""
        mix = trailing(self.mix, x)
        return mix * x + (1 - mix) * before

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"mix": ("features",)}


@struct.dataclass
class Decay:
    """The recurrence's rates: exp(log_decay) is forgotten at each token, `bonus` favors the current one."""

    log_decay: Float[Array, "heads"]
    bonus: Float[Array, "heads"]

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"log_decay": ("heads",), "bonus": ("heads",)}


@struct.dataclass
class Layer:
    """Time mix and channel mix, each behind its norm."""

    time_norm: LayerNorm
    key_shift: Shift
    value_shift: Shift
    receptance_shift: Shift
    decay: Decay
    key: Weight
    value: Weight
    receptance: Weight
    out: Weight
    channel_norm: LayerNorm
    channel_key_shift: Shift
    channel_receptance_shift: Shift
    up: Weight
    down: Weight
    channel_receptance: Weight
    dropout: float = struct.field(pytree_node=False)

    def __call__(
        self, x: Hidden, tokens: Tokens, call: Call, cache: caches.Wkv4 | None, key: RowKeys | None
    ) -> tuple[Hidden, caches.Wkv4 | None, Report]:
        """The residual stream after this layer, the new state, and taps; `tokens` of all joined devices."""
        state = cache or self.empty_cache(x.shape[0], 0, x.dtype)
        starts = _starts(tokens.segments, state.segment)
        normed = call.layout.enter(self.time_norm(x))
        y, wkv = self._time_mix(normed, starts, tokens, state, call)
        x = x + dropout(y, self.dropout, at(key, "time.dropout"), call.layout)
        channel = call.layout.enter(self.channel_norm(x))
        z = self._channel_mix(channel, _before(channel, state.channel_input, starts), call)
        x = x + dropout(z, self.dropout, at(key, "channel.dropout"), call.layout)
        report = Report(tapped(call, attention=y, mlp=z, residual=x))
        if cache is None:
            return x, None, report
        return x, _remember(state, normed, channel, wkv, tokens.segments), report

    def _time_mix(
        self, x: Joined, starts: Array, tokens: Tokens, state: caches.Wkv4, call: Call
    ) -> tuple[Hidden, WkvState]:
        before = _before(x, state.time_input, starts)
        receptance = jax.nn.sigmoid(project(self.receptance, self.receptance_shift(x, before), "rpe,ef->rpf", call))
        k = project(self.key, self.key_shift(x, before), "rpe,ef->rpf", call)
        v = project(self.value, self.value_shift(x, before), "rpe,ef->rpf", call)
        past = WkvState(state.numerator, state.denominator, state.exponent)
        decay, bonus = jnp.exp(self.decay.log_decay.astype(jnp.float32)), self.decay.bonus.astype(jnp.float32)
        mixed, past = wkv4(decay, bonus, k, v, starts, tokens.segments == 0, past)
        return project(self.out, receptance * mixed.astype(x.dtype), "rpf,fe->rpe", call), past

    def _channel_mix(self, x: Joined, before: Joined, call: Call) -> Hidden:
        shifted = self.channel_receptance_shift(x, before)
        receptance = jax.nn.sigmoid(project(self.channel_receptance, shifted, "rpe,ef->rpf", call))
        hidden = project(self.up, self.channel_key_shift(x, before), "rpe,em->rpm", call)
        hidden = call.layout.constrain(jnp.square(jax.nn.relu(hidden)), ("row", "pos", "mlp"))
        # some features of all tokens for all features of some
        receptance = call.layout.exchange(receptance, "heads", split=1, join=2)
        return receptance * project(self.down, hidden, "rpm,me->rpe", call)

    def empty_cache(self, rows: int, length: int, dtype: Any) -> caches.Wkv4:
        """No tokens yet; the state's size does not depend on `length`."""
        embed = self.key_shift.mix.shape[-1]
        inputs = (jnp.zeros((rows, embed), dtype), jnp.zeros((rows, embed), dtype))
        empty, segment = WkvState.empty(rows, self.decay.bonus.shape[-1]), jnp.zeros(rows, jnp.int32)
        return caches.Wkv4(*inputs, empty.numerator, empty.denominator, empty.exponent, segment)


def _starts(segments: Int[Array, "row pos"], last: Int[Array, "row"]) -> Array:
    """Where a document begins: its segment differs from that of the last token that was not padding."""
    before = jnp.concatenate([last[:, None], segments[:, :-1]], axis=1)
    return (segments != before) & (segments > 0)


def _before(x: Hidden, last: Float[Array, "row embed"], starts: Array) -> Hidden:
    """The token before each, zero at a document's start."""
    shifted = jnp.concatenate([last[:, None].astype(x.dtype), x[:, :-1]], axis=1)
    return jnp.where(starts[..., None], 0, shifted)


def _remember(
    state: caches.Wkv4, time: Hidden, channel: Hidden, wkv: WkvState, segments: Int[Array, "row pos"]
) -> caches.Wkv4:
    """The state after a row's last token that is not padding; padding may only follow a row's tokens."""
    count = jnp.sum(segments > 0, axis=1)
    rows, last = jnp.arange(segments.shape[0]), jnp.maximum(count - 1, 0)
    any_new = count > 0
    return caches.Wkv4(
        jnp.where(any_new[:, None], time[rows, last], state.time_input),
        jnp.where(any_new[:, None], channel[rows, last], state.channel_input),
        wkv.numerator,
        wkv.denominator,
        wkv.exponent,
        jnp.where(any_new, segments[rows, last], state.segment),
    )


@struct.dataclass
class Rwkv:
    """Token embedding and norm, layers, norm, head."""

    embedding: Weight
    embedding_norm: LayerNorm
    blocks: Stack
    norm: LayerNorm
    head: Weight | None
    config: config.Rwkv4 = struct.field(pytree_node=False)

    def __call__(
        self,
        inputs: Tokens,
        call: Call,
        *,
        memory: Memory | None = None,
        cache: caches.Cache | None = None,
        key: RowKeys | None = None,
    ) -> Output:
        """Hidden states after the last norm; positions are not used. Raises UsageError for a memory."""
        if memory is not None:
            raise UsageError("rwkv4 has no cross-attention: it takes no memory")
        if call.layout.shards("pos") > 1:
            raise UsageError("where.mesh.context: rwkv4 reads a row from left to right on one device; use 1")
        x = self.embedding_norm(look_up(self.embedding, inputs.ids, call))
        x = dropout(x, self.config.dropout, at(key, "embedding.dropout"), call.layout)
        x = call.layout.constrain(x, ("row", "pos", "features"))
        layers = None if cache is None else cache.layers
        x, layers, report = self.blocks(x, call.layout.enter(inputs), call, caches=layers, key=at(key, "blocks"))
        cache = None if cache is None else cache.advance(layers, inputs.segments)
        return Output(self.norm(x), cache, taps=report.taps)

    def encode(self, source: Tokens, call: Call, *, key: RowKeys | None = None) -> Memory:
        """A recurrent model has no encoder: raises UsageError."""
        raise UsageError("rwkv4 has no encoder: use an encoder_decoder model")

    def scorer(self, call: Call) -> heads.Scorer:
        """Hidden states -> scores; see `heads.scorer`."""
        return heads.scorer(self.embedding, self.head, self.config.head, call)

    def logits(self, hidden: Float[Array, "... embed"], call: Call) -> Float[Array, "... vocab"]:
        """Scores of the next token."""
        return self.scorer(call)(hidden)

    def empty_cache(self, rows: int, length: int, call: Call) -> caches.Cache:
        """States of one size, whatever `length`."""
        layers = (layer.empty_cache(rows, length, call.precision.compute) for layer in self.blocks.layers())
        return caches.Cache(tuple(layers), jnp.zeros(rows, jnp.int32))


def initial_rwkv(model: config.Rwkv4, init: Initial) -> Rwkv:
    """Kernels of variance 1 / inputs; rates spread from slow to fast over the features (appendix E)."""
    scale = (2 * model.layers) ** -0.5
    square = ((model.embed, model.embed), ("embed", "heads"))
    back = ((model.embed, model.embed), ("heads", "embed"))
    spread = jnp.linspace(0.0, 1.0, model.embed)

    def layer(_: config.Rwkv4, init: Initial) -> Layer:
        def norm() -> LayerNorm:
            return initial_norm(model.norm, model.embed, init.dtype)

        def shift() -> Shift:
            return Shift(jnp.array(spread, init.dtype))

        return Layer(
            time_norm=norm(),
            key_shift=shift(),
            value_shift=shift(),
            receptance_shift=shift(),
            decay=Decay((8.0 * spread - 5.0).astype(init.dtype), jnp.full(model.embed, 0.3, init.dtype)),
            key=init.dense("key", *square),
            value=init.dense("value", *square),
            receptance=init.dense("receptance", *square),
            out=init.dense("out", *back, scale=scale),
            channel_norm=norm(),
            channel_key_shift=shift(),
            channel_receptance_shift=shift(),
            up=init.dense("up", (model.embed, model.width), ("embed", "mlp")),
            down=init.dense("down", (model.width, model.embed), ("mlp", "embed"), scale=scale),
            channel_receptance=init.dense("channel_receptance", *square),
            dropout=model.dropout,
        )

    return Rwkv(
        embedding=heads.initial_embedding(model.vocab, model.embed, init),
        embedding_norm=initial_norm(model.norm, model.embed, init.dtype),
        blocks=initial_stack(model, model.layers, layer, init.at("blocks")),
        norm=initial_norm(model.norm, model.embed, init.dtype),
        head=heads.initial_head(model.head, model.vocab, model.embed, init),
        config=model,
    )
