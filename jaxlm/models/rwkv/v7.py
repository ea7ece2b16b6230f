"""RWKV-7, Goose: heads whose states follow a generalized delta rule (arXiv:2503.14456)."""

from __future__ import annotations

from math import exp

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.config.recurrent import head_count
from jaxlm.layers.contracts import Call
from jaxlm.layers.initial import Initial
from jaxlm.layers.norms import initial_norm
from jaxlm.layers.projection import Weight, project
from jaxlm.layers.stack import Stack
from jaxlm.layers.taps import tapped
from jaxlm.layers.wkv import wkv7
from jaxlm.models.rwkv import initial
from jaxlm.models.rwkv.parts import (
    HeadNorm,
    Heads,
    Hidden,
    Joined,
    Layer,
    Lerp,
    LowRank,
    Neighbors,
    Taps,
    of_heads,
    split,
    squared_relu,
)
from jaxlm.models.rwkv.v5 import FROM_HEADS, TO_HEADS, State
from jaxlm.parallel.layout import Axes

FASTEST = -exp(-0.5)
"""Log of the least that is kept of a feature of the state at a token, 0.545."""


@struct.dataclass
class TimeMix:
    """The first layer has no `residual`: its values are those that the others mix with their own."""

    receptance_shift: Lerp
    decay_shift: Lerp
    key_shift: Lerp
    value_shift: Lerp
    rate_shift: Lerp
    gate_shift: Lerp
    receptance: Weight
    key: Weight
    value: Weight
    decay: LowRank
    rate: LowRank
    residual: LowRank | None
    gate: LowRank
    removal: Float[Array, "features"]
    """Scales of the key whose value is taken out (xi)."""
    relaxation: Float[Array, "features"]
    """How much of the key's own weight follows the rate (alpha)."""
    bonus: Float[Array, "features"]
    """Weights of the current token's value (rho)."""
    norm: HeadNorm
    out: Weight
    head_size: int = struct.field(pytree_node=False)
    strength: float = struct.field(pytree_node=False)

    @property
    def heads(self) -> tuple[int, int]:
        """Number of heads, features of each."""
        return self.bonus.shape[-1] // self.head_size, self.head_size

    def __call__(
        self, x: Joined, before: Joined, values: Heads | None, neighbors: Neighbors, state: State, call: Call
    ) -> tuple[Hidden, State, Heads, Taps]:
        """`values` are the first layer's, None in itself."""
        size, names = self.head_size, ("receptance", "key", "value")
        inputs = {name: getattr(self, f"{name}_shift")(x, before) for name in names}
        r, k, v = (project(getattr(self, name), inputs[name], TO_HEADS, call) for name in names)
        k = k.astype(jnp.float32)
        if self.residual is not None:
            share = jax.nn.sigmoid(split(self.residual(inputs["value"], call), size))
            v = v + (values - v) * share.astype(v.dtype)
        decay = FASTEST * jax.nn.sigmoid(self.decay(self.decay_shift(x, before), call, jnp.tanh))
        rate = split(jax.nn.sigmoid(self.rate(self.rate_shift(x, before), call)), size)
        gate = split(self.gate(self.gate_shift(x, before), call, jax.nn.sigmoid), size)
        removal = _unit(k * of_heads(self.removal, k))
        k = k * (1 + (rate - 1) * of_heads(self.relaxation, k))
        starts, padding = neighbors.starts, neighbors.padding
        rate = self.strength * rate
        mixed, state = wkv7(r, k, v, split(decay, size), removal, rate, starts, padding, state, call.recurrence)
        own = jnp.sum(r.astype(jnp.float32) * k * of_heads(self.bonus, k), axis=-1, keepdims=True)
        mixed = self.norm(mixed) + own * v.astype(jnp.float32)
        inputs["out"] = mixed.astype(gate.dtype) * gate
        taps = tapped(call, **{f"time.{name}": one for name, one in inputs.items()})
        y = project(self.out, inputs["out"], FROM_HEADS, call)
        return y, state, v if values is None else values, taps

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return dict.fromkeys(("removal", "relaxation", "bonus"), ("heads",))


def _unit(x: Heads) -> Heads:
    """Of length 1, or shorter than 1e-12 times 1e12, whose gradient at zero is finite."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24))


@struct.dataclass
class ChannelMix:
    """A position-wise layer of shifted tokens, without a gate."""

    shift: Lerp
    up: Weight
    down: Weight

    def __call__(self, x: Joined, before: Joined, call: Call) -> tuple[Hidden, Taps]:
        """relu(up)^2 down, and taps."""
        return squared_relu(self.up, self.down, self.shift(x, before), call, "channel.")


def initial_stack7(model: config.Rwkv7, init: Initial) -> Stack:
    """The first layer by itself, as it has fewer parameters, and the others stacked."""
    first = _layer(model, init.number(0))
    later = ()
    if model.layers > 1:
        later = (
            jax.vmap(lambda index: _layer(model, init.number(index), later=True))(jnp.arange(1, model.layers)),
        )
    return Stack((first,), later, (), model.layers - 1)


def _layer(model: config.Rwkv7, init: Initial, *, later: bool = False) -> Layer:
    depth = initial.Depth(init, model.layers)
    return Layer(
        time_norm=initial_norm(model.norm, model.embed, init.dtype),
        time=_time_mix(model, depth, init.at("time"), later),
        channel_norm=initial_norm(model.norm, model.embed, init.dtype),
        channel=ChannelMix(
            shift=Lerp((1 - initial.ramp(model.embed, depth.down**4)).astype(init.dtype)),
            up=initial.into("channel.up", model.embed, model.width, "mlp", init),
            down=initial.zero("channel.down", model.width, model.embed, "mlp", init),
        ),
        dropout=model.dropout,
    )


def _time_mix(model: config.Rwkv7, depth: initial.Depth, init: Initial, later: bool) -> TimeMix:
    e, count, size = model.embed, head_count(model), model.head_size
    shape = (e, count, size)
    line, place = initial.slope(e) - 0.5, jnp.arange(e) % size / max((size - 1) / 2, 0.5) - 1
    zigzag = place * jnp.abs(place)

    def shift(power: float) -> Lerp:
        return Lerp((1 - initial.ramp(e, power * depth.down)).astype(init.dtype))

    def low_rank(name: str, rank: int, base: Array | None) -> LowRank:
        # orthogonal with gain 0.1 sqrt(rank / e) where that is above 1
        std = 0.1 / max(rank, e) ** 0.5 * max(rank / e, 1) ** 0.5
        return initial.low_rank(name, e, rank, base, init, std)

    def full(value: Array | float) -> Array:
        return jnp.broadcast_to(value, e).astype(init.dtype)

    decay = -5.5 + 6 * initial.slope(e, 1 + depth.up**0.3) + 2.5 * zigzag
    return TimeMix(
        receptance_shift=shift(0.2),
        decay_shift=shift(0.9),
        key_shift=shift(0.7),
        value_shift=shift(0.7),
        rate_shift=shift(0.9),
        gate_shift=shift(0.2),
        receptance=initial.to_heads("receptance", shape, init),
        key=initial.to_heads("key", shape, init, gain=0.1),
        value=initial.to_heads("value", shape, init),
        decay=low_rank("decay", model.decay_rank, decay),
        rate=low_rank("rate", model.rate_rank, -0.19 + 0.3 * zigzag + 0.4 * line),
        residual=low_rank("residual", model.value_rank, 0.73 - 0.4 * line) if later else None,
        gate=low_rank("gate", model.gate_rank, None),
        removal=full(0.71 - 0.1 * line),
        relaxation=full(1.02),
        bonus=full(-0.04),
        norm=initial.head_norm(e, depth, init),
        out=initial.from_heads("out", (count, size, e), init),
        head_size=size,
        strength=model.removal,
    )
