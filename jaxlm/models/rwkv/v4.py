"""RWKV-4: a recurrent language model whose state has one size (Peng et al. 2023, arXiv:2305.13048)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.layers import cache as caches
from jaxlm.layers.contracts import Call, RowKeys, Tokens
from jaxlm.layers.initial import Initial
from jaxlm.layers.norms import LayerNorm, initial_norm
from jaxlm.layers.projection import Weight, project
from jaxlm.layers.random import at, dropout
from jaxlm.layers.taps import Report, tapped
from jaxlm.layers.wkv import WkvState, wkv4
from jaxlm.models.rwkv import initial
from jaxlm.models.rwkv.parts import Hidden, Joined, Neighbors, Shift, Taps, sigmoid_gate, squared_relu
from jaxlm.parallel.layout import Axes


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
        state = self.empty_cache(x.shape[0], 0, x.dtype) if cache is None else cache
        neighbors = Neighbors.of(tokens.segments, None if cache is None else cache.segment)
        normed = call.layout.enter(self.time_norm(x))
        y, wkv, taps = self._time_mix(normed, neighbors, state, call)
        x = x + dropout(y, self.dropout, at(key, "time.dropout"), call.layout)
        channel = call.layout.enter(self.channel_norm(x))
        z, more = self._channel_mix(channel, neighbors.before(channel, state.channel_input), call)
        x = x + dropout(z, self.dropout, at(key, "channel.dropout"), call.layout)
        report = Report(taps | more | tapped(call, attention=y, mlp=z, residual=x))
        if cache is None:
            return x, None, report
        time, channel = neighbors.last(normed, state.time_input), neighbors.last(channel, state.channel_input)
        sums = (wkv.numerator, wkv.denominator, wkv.exponent)
        return x, caches.Wkv4(time, channel, *sums, neighbors.last(tokens.segments, state.segment)), report

    def _time_mix(
        self, x: Joined, neighbors: Neighbors, state: caches.Wkv4, call: Call
    ) -> tuple[Hidden, WkvState, Taps]:
        before, names = neighbors.before(x, state.time_input), ("receptance", "key", "value")
        inputs = {name: getattr(self, f"{name}_shift")(x, before) for name in names}
        r, k, v = (project(getattr(self, name), inputs[name], "rpe,ef->rpf", call) for name in names)
        past = WkvState(state.numerator, state.denominator, state.exponent)
        decay, bonus = jnp.exp(self.decay.log_decay.astype(jnp.float32)), self.decay.bonus.astype(jnp.float32)
        mixed, past = wkv4(decay, bonus, k, v, neighbors.starts, neighbors.padding, past, call.recurrence)
        inputs["out"] = jax.nn.sigmoid(r) * mixed.astype(x.dtype)
        return project(self.out, inputs["out"], "rpf,fe->rpe", call), past, tapped(call, **inputs)

    def _channel_mix(self, x: Joined, before: Joined, call: Call) -> tuple[Hidden, Taps]:
        shifted = self.channel_receptance_shift(x, before)
        gate = sigmoid_gate(self.channel_receptance, shifted, call)
        y, taps = squared_relu(self.up, self.down, self.channel_key_shift(x, before), call)
        return gate * y, taps | tapped(call, channel_receptance=shifted)

    def empty_cache(self, rows: int, length: int, dtype: Any) -> caches.Wkv4:
        """No tokens yet; the state's size does not depend on `length`."""
        embed = self.key_shift.mix.shape[-1]
        inputs = (jnp.zeros((rows, embed), dtype), jnp.zeros((rows, embed), dtype))
        empty, segment = WkvState.empty(rows, self.decay.bonus.shape[-1]), jnp.zeros(rows, jnp.int32)
        return caches.Wkv4(*inputs, empty.numerator, empty.denominator, empty.exponent, segment)


def initial_layer(model: config.Rwkv4, init: Initial) -> Layer:
    """One layer; its number decides how it begins."""
    e, depth = model.embed, initial.Depth(init, model.layers)

    def norm() -> LayerNorm:
        return initial_norm(model.norm, e, init.dtype)

    def shift(power: float, more: Array | float = 0.0) -> Shift:
        return Shift((initial.ramp(e, power * depth.down) + more).astype(init.dtype))

    decay = -5 + 8 * initial.slope(e, 0.7 + 1.3 * depth.up)
    bonus = jnp.log(0.3) + 0.5 * initial.thirds(e)
    return Layer(
        time_norm=norm(),
        key_shift=shift(1.0),
        value_shift=shift(1.0, 0.3 * depth.up),
        receptance_shift=shift(0.5),
        decay=Decay(decay.astype(init.dtype), bonus.astype(init.dtype)),
        key=initial.into("key", e, e, "heads", init, gain=0.0),
        value=initial.into("value", e, e, "heads", init),
        receptance=initial.into("receptance", e, e, "heads", init, gain=0.0),
        out=initial.zero("out", e, e, "heads", init),
        channel_norm=norm(),
        channel_key_shift=shift(1.0),
        channel_receptance_shift=shift(1.0),
        up=initial.into("up", e, model.width, "mlp", init, gain=max(model.width / e, 1) ** 0.5),
        down=initial.zero("down", model.width, e, "mlp", init),
        channel_receptance=initial.into("channel_receptance", e, e, "heads", init, gain=0.0),
        dropout=model.dropout,
    )
