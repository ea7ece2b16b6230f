"""Bringing tokens to their experts and back: slots of a buffer that is ordered by expert.

Both ways are gathers, forward and backward: adding rows at repeated indices is slow on TPU, and on GPU it adds in
another order every time.
"""

from __future__ import annotations

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int


@struct.dataclass
class Slots:
    """Which choice of which token lies where. Choice c of token t has the number t * k + c."""

    choices: Int[Array, "slot"]
    """The choice in each slot; the number of choices where the slot is empty."""
    slots: Int[Array, "token k"]
    """The slot of each choice; the number of slots where the choice was dropped or the token is padding."""
    sizes: Int[Array, "experts"]
    """Slots of each expert, one expert after the other."""


def dropless(choices: Int[Array, "token k"], experts: int) -> Slots:
    """A slot for every choice of an expert below `experts`, sorted by expert, within an expert by token.

    Others (padding, experts elsewhere) have none. A token's choices are distinct, so that token * min(k, experts)
    slots are enough, whatever is chosen; those in use come first.
    """
    flat = choices.reshape(-1)
    most = choices.shape[0] * min(choices.shape[1], experts)
    order = jnp.argsort(flat, stable=True)
    sizes = jnp.bincount(flat, length=experts + 1)[:experts]
    slots = jnp.zeros_like(flat).at[order].set(jnp.arange(flat.size, dtype=flat.dtype), unique_indices=True)
    return Slots(
        choices=jnp.where(jnp.arange(most) < jnp.sum(sizes), order[:most], flat.size),
        slots=jnp.where(flat < experts, slots, most).reshape(choices.shape),
        sizes=sizes,
    )


@functools.cache
def limits(factor: float, group: int, k: int, experts: int) -> Int[np.ndarray, "tokens"]:
    """Tokens that an expert takes of a group of 0, 1, ..., `group` tokens: ceil(factor * tokens * k / experts).

    Exact, of the factor as it is written: an expert of 10 takes 11 of 100 tokens by 1.1, not 12.
    """
    share = Fraction(repr(factor)) * k / experts
    return np.array([-(-n * share.numerator // share.denominator) for n in range(group + 1)], np.int32)


def capacity(
    choices: Int[Array, "token k"], real: Bool[Array, "token"], experts: int, taken: Int[np.ndarray, "tokens"]
) -> Slots:
    """Slots for as many choices as each expert takes of each group of tokens, groups in order.

    `taken` is what `limits` returned; a group has as many tokens as its last index.

    Earlier tokens go first, whatever the rank of their choice: what comes later in a row never takes a slot away,
    so that a causal model stays causal. Padding takes no slot, and the limit is that of the group's real tokens:
    padding a row changes nothing. The last group may be smaller.
    """
    (tokens, k), group = choices.shape, len(taken) - 1
    groups = -(-tokens // group)
    most = min(int(taken[-1]), group)
    chosen = jnp.sum(jax.nn.one_hot(choices, experts, dtype=jnp.int32), axis=1)
    fill = (0, groups * group - tokens)
    grouped = jnp.pad(chosen, (fill, (0, 0))).reshape(groups, group, experts)
    before = (jnp.cumsum(grouped, axis=1) - grouped).reshape(groups * group, experts)[:tokens]
    count = jnp.sum(jnp.pad(real, fill).reshape(groups, group), axis=1)
    of = jnp.arange(tokens) // group
    limit = jnp.asarray(taken)[count][of]
    rank = jnp.take_along_axis(before, jnp.minimum(choices, experts - 1), axis=1)
    size = experts * groups * most
    fits = (choices < experts) & (rank < limit[:, None])
    slots = jnp.where(fits, (choices * groups + of[:, None]) * most + rank, size)
    place = jnp.arange(tokens * k, dtype=slots.dtype)
    filled = jnp.full(size, tokens * k, slots.dtype).at[slots.reshape(-1)].set(place, mode="drop")
    return Slots(choices=filled, slots=slots, sizes=jnp.full(experts, groups * most, jnp.int32))


def spread(x: Float[Array, "token embed"], slots: Slots) -> Float[Array, "slot embed"]:
    """The token of each slot; zeros where it is empty."""
    k = slots.slots.shape[1]
    empty = slots.choices == slots.slots.size
    return _rows(x, jnp.where(empty, x.shape[0], slots.choices // k), slots.slots.T)


def weights_of(weights: Float[Array, "token k"], slots: Slots) -> Float[Array, "slot 1"]:
    """The weight of each slot's choice; zero where it is empty."""
    return _rows(weights.reshape(-1, 1), slots.choices, slots.slots.reshape(1, -1))


def collect(y: Float[Array, "slot embed"], slots: Slots) -> Float[Array, "token embed"]:
    """The sum over a token's choices of y, in float32; a dropped choice adds nothing."""
    tokens, k = slots.slots.shape
    # Choices in front: a TPU pads the last dimension but one, and k is small.
    place = jnp.where(slots.choices == tokens * k, tokens * k, slots.choices % k * tokens + slots.choices // k)
    return jnp.sum(_rows(y, slots.slots.T, place[None]).astype(jnp.float32), axis=0)


@jax.custom_vjp
def _rows(
    x: Float[Array, "row features"], index: Int[Array, "..."], back: Int[Array, "uses row"]
) -> Float[Array, "... features"]:
    """x[index], zeros beyond the last row; `back` holds the flat places in `index` where each row is used."""
    return jnp.take(x, index, axis=0, mode="fill", fill_value=0)


def _rows_forward(x: Array, index: Array, back: Array) -> tuple[Array, Array]:
    return _rows(x, index, back), back


def _rows_backward(back: Array, cotangent: Array) -> tuple[Array, None, None]:
    flat = cotangent.reshape(-1, cotangent.shape[-1])
    uses = jnp.take(flat, back, axis=0, mode="fill", fill_value=0)
    return jnp.sum(uses.astype(jnp.float32), axis=0).astype(cotangent.dtype), None, None


_rows.defvjp(_rows_forward, _rows_backward)
