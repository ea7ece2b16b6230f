"""Linear attention of RWKV-5 and 6: a matrix a head, whose rows decay each at its own rate (arXiv:2404.05892)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxlm.layers.wkv.chunks import Documents, Form, cut, dot, in_chunks, joined, reach

Features = Float[Array, "row pos heads head"]
State = Float[Array, "row heads key value"]


def wkv6(
    receptance: Features,
    key: Features,
    value: Features,
    decay: Features,
    bonus: Float[Array, "heads head"],
    starts: Bool[Array, "row pos"],
    padding: Bool[Array, "row pos"],
    state: State,
    form: Form,
) -> tuple[Features, State]:
    """y_t = r_t (S + diag(u) k_t v_t), then S <- diag(w_t) S + k_t v_t, all in float32.

    `decay` is log w_t <= 0, `bonus` u. The state S is emptied where `starts` (a document's first token) and kept
    where `padding`, whose y_t mean nothing.
    """
    with jax.named_scope("wkv"):
        pad = padding[:, :, None, None]
        decay, key = jnp.where(pad, 0.0, decay), jnp.where(pad, 0.0, key)
        receptance, key, value = (x.astype(jnp.float32) for x in (receptance, key, value))
        run = _chunked if in_chunks(form, key.shape[1]) else _scanned
        mixed, state = run(receptance, key, value, decay, starts, state)
        own = jnp.sum(receptance * bonus.astype(jnp.float32)[None, None] * key, axis=-1, keepdims=True)
        return mixed + own * value, state


def _scanned(
    receptance: Features, key: Features, value: Features, decay: Features, starts: Array, state: State
) -> tuple[Features, State]:
    def step(state: State, token: tuple) -> tuple[State, Array]:
        r, k, v, w, start = token
        state = jnp.where(start[:, None, None, None], 0.0, state)
        mixed = jnp.sum(r[..., None] * state, axis=-2)
        return jnp.exp(w)[..., None] * state + k[..., None] * v[..., None, :], mixed

    tokens = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (receptance, key, value, decay, starts))
    state, mixed = jax.lax.scan(step, state, tokens)
    return jnp.moveaxis(mixed, 0, 1), state


def _chunked(
    receptance: Features, key: Features, value: Features, decay: Features, starts: Array, state: State
) -> tuple[Features, State]:
    """Products of matrices within chunks, and a state from each chunk to the next."""
    length, documents = key.shape[1], Documents.of(starts)
    r, k, v, w = (cut(x) for x in (receptance, key, value, decay))
    seen = reach(r[..., None, :], k[..., None, :], w)
    within = dot("...ts,...sv->...tv", seen.scores[..., 0, :, 0] * documents.together, v)
    new = dot("...sk,...sv->...kv", k * jnp.exp(seen.after) * documents.lasting, v)
    kept = jnp.exp(seen.total) * documents.whole

    def chunk(state: State, x: tuple) -> tuple[State, State]:
        kept, new = x
        return kept[..., None] * state + new, state

    state, past = jax.lax.scan(chunk, state, jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0), (kept, new)))
    old = dot("...tk,...kv->...tv", r * jnp.exp(seen.before) * documents.old, jnp.moveaxis(past, 0, 2))
    return joined(within + old, length), state
