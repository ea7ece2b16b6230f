"""RWKV-4's linear attention: a running, exponentially decayed average of values (arXiv:2305.13048)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from jaxlm.layers.wkv.chunks import Form, in_chunks

CHUNK = 64
"""Tokens of a chunk: a row of length n takes as many steps one after the other, and n / 64 more."""
Features = Float[Array, "row pos embed"]


@struct.dataclass
class WkvState:
    """Numerator and denominator, both divided by exp(exponent): float32, never overflowing."""

    numerator: Float[Array, "row embed"]
    denominator: Float[Array, "row embed"]
    exponent: Float[Array, "row embed"]

    @classmethod
    def empty(cls, rows: int, embed: int) -> WkvState:
        """Before the first token."""
        shape = (rows, embed)
        return cls(jnp.zeros(shape), jnp.zeros(shape), jnp.full(shape, -1e38, jnp.float32))


def wkv4(
    decay: Float[Array, "embed"],
    bonus: Float[Array, "embed"],
    key: Features,
    value: Features,
    starts: Bool[Array, "row pos"],
    padding: Bool[Array, "row pos"],
    state: WkvState,
    form: Form,
) -> tuple[Features, WkvState]:
    """Equation 16, in the recurrent form of appendix D, float32.

    `decay` is the positive rate w, subtracted from the exponents at each token; `bonus` is u, for the current one.
    The state is emptied where `starts` (a document's first token) and kept where `padding`.
    """
    with jax.named_scope("wkv"):
        key, value = key.astype(jnp.float32), value.astype(jnp.float32)
        run = _chunked if in_chunks(form, key.shape[1]) else _scanned
        return run(decay[None], bonus[None], key, value, starts, padding, state)


def _average(bonus: Array, state: WkvState, k: Array, v: Array) -> Array:
    """Equation 16: the state and, with the bonus, the token itself."""
    now = jnp.maximum(state.exponent, bonus + k)
    past, present = jnp.exp(state.exponent - now), jnp.exp(bonus + k - now)
    return (past * state.numerator + present * v) / (past * state.denominator + present)


def _select(row: Bool[Array, "row"], yes: WkvState, no: WkvState) -> WkvState:
    return jax.tree.map(lambda a, b: jnp.where(row[:, None], a, b), yes, no)


def _step(decay: Array, state: WkvState, k: Array, v: Array, pad: Array) -> WkvState:
    """The state after a token."""
    later = jnp.maximum(state.exponent - decay, k)
    past, present = jnp.exp(state.exponent - decay - later), jnp.exp(k - later)
    new = WkvState(past * state.numerator + present * v, past * state.denominator + present, later)
    return _select(pad, state, new)


def _scanned(
    decay: Array, bonus: Array, key: Features, value: Features, starts: Array, padding: Array, state: WkvState
) -> tuple[Features, WkvState]:
    empty = WkvState.empty(key.shape[0], key.shape[2])

    def step(state: WkvState, token: tuple) -> tuple[WkvState, Array]:
        k, v, start, pad = token
        state = _select(start, empty, state)
        return _step(decay, state, k, v, pad), _average(bonus, state, k, v)

    tokens = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (key, value, starts, padding))
    state, mixed = jax.lax.scan(step, state, tokens)
    return jnp.moveaxis(mixed, 0, 1), state


def _chunked(
    decay: Array, bonus: Array, key: Features, value: Features, starts: Array, padding: Array, state: WkvState
) -> tuple[Features, WkvState]:
    """All chunks at once token by token, then the state from chunk to chunk, then both added up for each token."""
    (rows, length, embed), fill = key.shape, -key.shape[1] % CHUNK
    key, value = (jnp.pad(x, ((0, 0), (0, fill), (0, 0))) for x in (key, value))
    starts, padding = (
        jnp.pad(starts, ((0, 0), (0, fill))),
        jnp.pad(padding, ((0, 0), (0, fill)), constant_values=True),
    )
    chunks = key.shape[1] // CHUNK

    def by_place(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(rows * chunks, CHUNK, *x.shape[2:]), 1, 0)

    key, value, starts, padding = (by_place(x) for x in (key, value, starts, padding))
    begun = jnp.cumsum(starts, axis=0) > 0
    # exclusive: what the chunk's first state has lost when a token meets it
    passed = jnp.cumsum(~padding, axis=0)
    lost = (passed - ~padding).astype(jnp.float32)
    empty = WkvState.empty(rows * chunks, embed)

    def step(own: WkvState, token: tuple) -> tuple[WkvState, WkvState]:
        k, v, start, pad = token
        own = _select(start, empty, own)
        return _step(decay, own, k, v, pad), own

    last, own = jax.lax.scan(step, empty, (key, value, starts, padding))

    def hand_on(state: WkvState, chunk: tuple) -> tuple[WkvState, WkvState]:
        last, lost, begun = chunk
        return _together(decay, state, last, lost, begun), state

    of_chunk = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(rows, chunks, *x.shape[1:]), 1, 0),
        (last, passed[-1].astype(jnp.float32), begun[-1]),
    )
    state, before = jax.lax.scan(hand_on, state, of_chunk)
    before = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(rows * chunks, embed), before)
    met = jax.vmap(_together, in_axes=(None, None, 0, 0, 0))(decay, before, own, lost, begun)
    mixed = _average(bonus[None], met, key, value)
    return jnp.moveaxis(mixed, 0, 1).reshape(rows, -1, embed)[:, :length], state


def _together(decay: Array, old: WkvState, new: WkvState, tokens: Array, begun: Array) -> WkvState:
    """A chunk's own state and the one from before it, so many tokens old, unless a document has begun since."""
    exponent = jnp.where(begun[:, None], -1e38, old.exponent - tokens[:, None] * decay)
    later = jnp.maximum(exponent, new.exponent)
    past, present = jnp.exp(exponent - later), jnp.exp(new.exponent - later)
    # an empty state beside another: neither's exponent says anything
    past = jnp.where(begun[:, None], 0.0, past)
    return WkvState(
        past * old.numerator + present * new.numerator, past * old.denominator + present * new.denominator, later
    )
