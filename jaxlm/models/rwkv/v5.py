"""RWKV-5 and 6, Eagle and Finch: a matrix for each head, with decays by channel (arXiv:2404.05892)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.config.recurrent import head_count
from jaxlm.layers.contracts import Call
from jaxlm.layers.initial import Initial
from jaxlm.layers.norms import initial_norm
from jaxlm.layers.products import trailing
from jaxlm.layers.projection import Weight, project
from jaxlm.layers.taps import tapped
from jaxlm.layers.wkv import wkv6
from jaxlm.models.rwkv import initial
from jaxlm.models.rwkv.parts import (
    ChannelMix,
    Features,
    HeadNorm,
    Hidden,
    Joined,
    Layer,
    Lerp,
    LowRank,
    Neighbors,
    Shift,
    Taps,
    split,
)
from jaxlm.parallel.layout import Axes

State = Float[Array, "row heads key value"]
TO_HEADS, FROM_HEADS = "rpe,ehd->rphd", "rphd,hde->rpe"


@struct.dataclass
class Rates:
    """exp(-exp(log_decay)) is kept of the state at each token; `bonus` weighs the current one."""

    log_decay: Float[Array, "features"]
    bonus: Float[Array, "features"]

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"log_decay": ("heads",), "bonus": ("heads",)}


@struct.dataclass
class Mixing:
    """What RWKV-5 and 6 have in common: from the projections on."""

    key: Weight
    value: Weight
    receptance: Weight
    gate: Weight
    norm: HeadNorm
    out: Weight
    head_size: int = struct.field(pytree_node=False)

    def __call__(
        self,
        inputs: dict[str, Joined],
        decay: Features,
        bonus: Array,
        neighbors: Neighbors,
        state: State,
        call: Call,
    ) -> tuple[Hidden, State, Taps]:
        """`decay` is the log of what is kept, `inputs` the shifted tokens of each projection."""
        k, v, r, g = (
            project(getattr(self, name), inputs[name], TO_HEADS, call)
            for name in ("key", "value", "receptance", "gate")
        )
        form, (starts, padding) = call.recurrence, (neighbors.starts, neighbors.padding)
        decay, bonus = split(decay, self.head_size), bonus.reshape(-1, self.head_size)
        mixed, state = wkv6(r, k, v, decay, bonus, starts, padding, state, form)
        mixed = self.norm(mixed).astype(g.dtype) * jax.nn.silu(g)
        taps = tapped(call, **{f"time.mixing.{name}": x for name, x in (inputs | {"out": mixed}).items()})
        return project(self.out, mixed, FROM_HEADS, call), state, taps


@struct.dataclass
class EagleTimeMix:
    """RWKV-5: fixed shifts and decays."""

    key_shift: Shift
    value_shift: Shift
    receptance_shift: Shift
    gate_shift: Shift
    rates: Rates
    mixing: Mixing

    @property
    def heads(self) -> tuple[int, int]:
        """Number of heads, features of each."""
        size = self.mixing.head_size
        return self.rates.bonus.shape[-1] // size, size

    def __call__(
        self, x: Joined, before: Joined, values: None, neighbors: Neighbors, state: State, call: Call
    ) -> tuple[Hidden, State, None, Taps]:
        """The mix, the new state and taps; `values` are of RWKV-7 only."""
        inputs = {
            "key": self.key_shift(x, before),
            "value": self.value_shift(x, before),
            "receptance": self.receptance_shift(x, before),
            "gate": self.gate_shift(x, before),
        }
        decay = -jnp.exp(self.rates.log_decay.astype(jnp.float32))
        decay = jnp.broadcast_to(decay[None, None], (*x.shape[:2], *decay.shape))
        y, state, taps = self.mixing(inputs, decay, self.rates.bonus, neighbors, state, call)
        return y, state, None, taps


@struct.dataclass
class Blend:
    """A share of the token before that the tokens themselves add to."""

    mix: Float[Array, "embed"]
    wide: Weight

    def __call__(self, x: Joined, before: Joined, low: Float[Array, "row joined rank"], call: Call) -> Joined:
        """x + (mix + low wide) * (before - x)."""
        share = trailing(self.mix, x) + project(self.wide, low, "rpk,ke->rpe", call)
        return x + share * (before - x)

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"mix": ("features",)}


@struct.dataclass
class Shifts:
    """The token shifts of RWKV-6, which depend on the tokens ("ddlerp")."""

    common: Lerp
    narrow: Weight
    decay: Blend
    key: Blend
    value: Blend
    receptance: Blend
    gate: Blend

    def __call__(self, x: Joined, before: Joined, call: Call) -> dict[str, Joined]:
        """Each input by its name."""
        low = jnp.tanh(project(self.narrow, self.common(x, before), "rpe,ek->rpk", call))
        names = ("decay", "key", "value", "receptance", "gate")
        parts = jnp.split(low, len(names), axis=-1)
        return {name: getattr(self, name)(x, before, part, call) for name, part in zip(names, parts, strict=True)}


@struct.dataclass
class FinchTimeMix:
    """RWKV-6: shifts and decays that depend on the tokens."""

    shifts: Shifts
    decay: LowRank
    bonus: Float[Array, "features"]
    mixing: Mixing

    @property
    def heads(self) -> tuple[int, int]:
        """Number of heads, features of each."""
        size = self.mixing.head_size
        return self.bonus.shape[-1] // size, size

    def __call__(
        self, x: Joined, before: Joined, values: None, neighbors: Neighbors, state: State, call: Call
    ) -> tuple[Hidden, State, None, Taps]:
        """The mix, the new state and taps; `values` are of RWKV-7 only."""
        inputs = self.shifts(x, before, call)
        decay = -jnp.exp(self.decay(inputs["decay"], call, jnp.tanh))
        y, state, taps = self.mixing(inputs, decay, self.bonus, neighbors, state, call)
        return y, state, None, taps

    def leaf_axes(self) -> dict[str, Axes]:
        """Logical axes of each leaf."""
        return {"bonus": ("heads",)}


def initial_layer(model: config.Rwkv5 | config.Rwkv6, init: Initial) -> Layer:
    """One layer of Eagle or Finch; its number decides how it begins."""
    depth = initial.Depth(init, model.layers)
    eagle = isinstance(model, config.Rwkv5)
    power = 1 if eagle else 3
    share = initial.ramp(model.embed, depth.down**power).astype(init.dtype)
    shift = Shift(share) if eagle else Lerp(1 - share)

    return Layer(
        time_norm=initial_norm(model.norm, model.embed, init.dtype),
        time=(_eagle if eagle else _finch)(model, depth, init.at("time")),
        channel_norm=initial_norm(model.norm, model.embed, init.dtype),
        channel=ChannelMix(
            key_shift=shift,
            receptance_shift=shift,
            up=initial.into("channel.up", model.embed, model.width, "mlp", init),
            down=initial.zero("channel.down", model.width, model.embed, "mlp", init),
            receptance=initial.into("channel.receptance", model.embed, model.embed, "heads", init, gain=0.0),
        ),
        dropout=model.dropout,
    )


def _mixing(model: config.Rwkv5 | config.Rwkv6, depth: initial.Depth, init: Initial) -> Mixing:
    count, size = head_count(model), model.head_size
    shape = (model.embed, count, size)
    return Mixing(
        key=initial.to_heads("key", shape, init, gain=0.1),
        value=initial.to_heads("value", shape, init),
        receptance=initial.to_heads("receptance", shape, init),
        gate=initial.to_heads("gate", shape, init, gain=0.1),
        norm=initial.head_norm(model.embed, depth, init),
        out=initial.from_heads("out", (count, size, model.embed), init),
        head_size=size,
    )


def _rates(model: config.Rwkv5 | config.Rwkv6, depth: initial.Depth) -> tuple[Array, Array]:
    """Decays from slow to fast over the features, and a bonus that falls, the more so the later the layer."""
    e = model.embed
    decay = -6 + 5 * initial.slope(e, 0.7 + 1.3 * depth.up)
    bonus = depth.up * (1 - initial.slope(e)) + 0.1 * initial.thirds(e)
    return decay, bonus


def _shares(model: config.Rwkv5 | config.Rwkv6, depth: initial.Depth) -> dict[str, Array]:
    """Of the token itself in each input."""
    whole, half = (initial.ramp(model.embed, power * depth.down) for power in (1.0, 0.5))
    return {"key": whole, "value": whole + 0.3 * depth.up, "receptance": half, "gate": half}


def _eagle(model: config.Rwkv5, depth: initial.Depth, init: Initial) -> EagleTimeMix:
    shifts = {f"{name}_shift": Shift(x.astype(init.dtype)) for name, x in _shares(model, depth).items()}
    rates = Rates(*(x.astype(init.dtype) for x in _rates(model, depth)))
    return EagleTimeMix(**shifts, rates=rates, mixing=_mixing(model, depth, init))


def _finch(model: config.Rwkv6, depth: initial.Depth, init: Initial) -> FinchTimeMix:
    e, rank = model.embed, model.mix_rank
    small = 0.01 / 3**0.5
    shares = _shares(model, depth)
    shares["decay"] = shares["key"]
    before = {name: (1 - x).astype(init.dtype) for name, x in shares.items()}

    def blend(name: str) -> Blend:
        return Blend(before[name], init.dense(f"shifts.{name}.wide", (rank, e), ("rank", "embed"), std=small))

    decay, bonus = _rates(model, depth)
    return FinchTimeMix(
        shifts=Shifts(
            common=Lerp(before["key"]),
            narrow=init.dense("shifts.narrow", (e, 5 * rank), ("embed", "rank"), std=0.0),
            **{name: blend(name) for name in ("decay", "key", "value", "receptance", "gate")},
        ),
        decay=initial.low_rank("decay", e, model.decay_rank, decay, init, small),
        bonus=bonus.astype(init.dtype),
        mixing=_mixing(model, depth, init),
    )
