"""RWKV-7's recurrence: a generalized delta rule on a matrix a head (arXiv:2503.14456)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxlm.layers.wkv.chunks import Documents, Form, cut, dot, in_chunks, joined, reach

Features = Float[Array, "row pos heads head"]
State = Float[Array, "row heads key value"]


def wkv7(
    receptance: Features,
    key: Features,
    value: Features,
    decay: Features,
    removal: Features,
    rate: Features,
    starts: Bool[Array, "row pos"],
    padding: Bool[Array, "row pos"],
    state: State,
    form: Form,
) -> tuple[Features, State]:
    """S <- (diag(w_t) - (a_t * z_t) z_t^T) S + k_t v_t^T, then y_t = r_t S.

    The paper's state is this one transposed. `decay` is log w_t <= 0, `removal` the key of length 1 whose value is
    taken out (z_t, kappa hat in the paper), `rate` how much of it (a_t, from 0 to 1, or to 2: then the value comes
    back with its sign changed). All in float32. The state S is emptied where `starts` (a document's first token)
    and kept where `padding`, whose y_t mean nothing.
    """
    with jax.named_scope("wkv"):
        receptance, key, value, decay, removal, rate = (
            x.astype(jnp.float32) for x in (receptance, key, value, decay, removal, rate)
        )
        pad = padding[:, :, None, None]
        decay, key, added = (jnp.where(pad, 0.0, x) for x in (decay, key, -rate * removal))
        run = _chunked if in_chunks(form, key.shape[1]) else _scanned
        return run(receptance, key, value, decay, removal, added, starts, state)


def _scanned(
    receptance: Features,
    key: Features,
    value: Features,
    decay: Features,
    removal: Features,
    added: Features,
    starts: Array,
    state: State,
) -> tuple[Features, State]:
    def step(state: State, token: tuple) -> tuple[State, Array]:
        r, k, v, w, z, b, start = token
        state = jnp.where(start[:, None, None, None], 0.0, state)
        found = jnp.sum(z[..., None] * state, axis=-2)
        new = b[..., None] * found[..., None, :] + k[..., None] * v[..., None, :]
        state = jnp.exp(w)[..., None] * state + new
        return state, jnp.sum(r[..., None] * state, axis=-2)

    every = (receptance, key, value, decay, removal, added, starts)
    state, mixed = jax.lax.scan(step, state, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), every))
    return jnp.moveaxis(mixed, 0, 1), state


def _chunked(
    receptance: Features,
    key: Features,
    value: Features,
    decay: Features,
    removal: Features,
    added: Features,
    starts: Array,
    state: State,
) -> tuple[Features, State]:
    """What tokens find under their removal keys, u_t = z_t S, follows for a chunk from one triangular system:

    u = (old state under z) + (z against k before) v + (z against b before) u, with b = -a * z. Given u, the
    state is as linear as RWKV-6's, in pairs (k, v) and (b, u) (the WY form of Yang et al. 2024, arXiv:2406.06484).
    """
    length, documents = key.shape[1], Documents.of(starts)
    r, k, v, w, z, b = (cut(x) for x in (receptance, key, value, decay, removal, added))
    # y_t is read after the token's own update: its decay is the query's
    seen = reach(jnp.stack([z, r * jnp.exp(w)], axis=-2), jnp.stack([b, k], axis=-2), w)
    (z_b, z_k), (r_b, r_k) = (
        [seen.scores[..., query, :, kind] * documents.together for kind in (0, 1)] for query in (0, 1)
    )
    decayed = jnp.exp(seen.before) * documents.old
    known = jnp.concatenate([z * decayed, dot("...ts,...sv->...tv", z_k, v)], axis=-1)
    of_state, of_values = jnp.split(dot("...ts,...sx->...tx", _resolvent(z_b), known), 2, axis=-1)
    lasting = jnp.exp(seen.after) * documents.lasting
    new = dot("...sk,...sv->...kv", k * lasting, v)
    kept = jnp.exp(seen.total) * documents.whole

    def chunk(state: State, x: tuple) -> tuple[State, tuple[State, Array]]:
        kept, new, of_state, of_values, b = x
        found = dot("...tk,...kv->...tv", of_state, state) + of_values
        return kept[..., None] * state + new + dot("...sk,...sv->...kv", b, found), (state, found)

    chunks = jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0), (kept, new, of_state, of_values, b * lasting))
    state, past = jax.lax.scan(chunk, state, chunks)
    past, found = (jnp.moveaxis(x, 0, 2) for x in past)
    mixed = dot("...tk,...kv->...tv", r * jnp.exp(w) * decayed, past)
    mixed += dot("...ts,...sv->...tv", r_b, found) + dot("...ts,...sv->...tv", r_k, v)
    mixed += jnp.sum(r * b, axis=-1, keepdims=True) * found + jnp.sum(r * k, axis=-1, keepdims=True) * v
    return joined(mixed, length), state


def _resolvent(lower: Float[Array, "row heads chunk token token"]) -> Float[Array, "row heads chunk token token"]:
    """(1 - lower)^-1 of a matrix that is zero on the diagonal and above, by halves.

    Not the sum of its powers, which may be huge and cancel; and products only, which devices are fast at.
    """
    size = lower.shape[-1]
    if size == 1:
        return jnp.ones_like(lower)
    half = size // 2
    first, second = jnp.split(_resolvent(jnp.concatenate([lower[..., :half, :half], lower[..., half:, half:]])), 2)
    below = dot("...ts,...sx->...tx", second, dot("...ts,...sx->...tx", lower[..., half:, :half], first))
    above = jnp.concatenate([first, jnp.zeros_like(below)], axis=-1)
    return jnp.concatenate([above, jnp.concatenate([below, second], axis=-1)], axis=-2)
