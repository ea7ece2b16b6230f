"""RWKV-4's linear attention: a running, exponentially decayed average of values (arXiv:2305.13048)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float


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
    key: Float[Array, "row pos embed"],
    value: Float[Array, "row pos embed"],
    starts: Bool[Array, "row pos"],
    padding: Bool[Array, "row pos"],
    state: WkvState,
) -> tuple[Float[Array, "row pos embed"], WkvState]:
    """Equation 16, in the recurrent form of appendix D: token by token, float32.

    `decay` is the positive rate w, subtracted from the exponents at each token; `bonus` is u, for the current one.
    The state is emptied where `starts` (a document's first token) and kept where `padding`.
    """
    empty = WkvState.empty(key.shape[0], key.shape[2])

    def step(state: WkvState, token: tuple) -> tuple[WkvState, Array]:
        k, v, start, pad = token
        state = _select(start, empty, state)
        now = jnp.maximum(state.exponent, bonus[None] + k)
        past, present = jnp.exp(state.exponent - now), jnp.exp(bonus[None] + k - now)
        mixed = (past * state.numerator + present * v) / (past * state.denominator + present)
        later = jnp.maximum(state.exponent - decay[None], k)
        past, present = jnp.exp(state.exponent - decay[None] - later), jnp.exp(k - later)
        new = WkvState(past * state.numerator + present * v, past * state.denominator + present, later)
        return _select(pad, state, new), mixed

    tokens = (key, value, starts, padding)
    with jax.named_scope("wkv"):
        by_position = jax.tree.map(
            lambda x: jnp.moveaxis(x.astype(jnp.float32) if x.ndim == 3 else x, 1, 0), tokens
        )
        state, mixed = jax.lax.scan(step, state, by_position)
        return jnp.moveaxis(mixed, 0, 1), state


def _select(row: Bool[Array, "row"], yes: WkvState, no: WkvState) -> WkvState:
    return jax.tree.map(lambda a, b: jnp.where(row[:, None], a, b), yes, no)
