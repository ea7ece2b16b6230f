"""Tokens drawn from scores: the same ones wherever the scores are computed."""

from __future__ import annotations

from math import lcm

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt32

from jaxlm.config.errors import UsageError
from jaxlm.layers.logprob import VOCAB
from jaxlm.parallel.layout import Layout

DEVICES = 64
"""Over so many a vocabulary can be spread."""


def draw(
    logits: Float[Array, "*joined vocab"], keys: UInt32[Array, "*batch words"], layout: Layout
) -> Int[Array, "*batch"]:
    """A token for each position with the probabilities softmax(logits), without a gradient, by the position's key.

    `keys` are as `jax.random.key_data` has them. The token is that of the largest logit + Gumbel noise (Maddison et
    al. 2014, arXiv:1411.0030), which is the same however the layout spreads the vocabulary. Where it does, the
    shapes are those of `logprob.log_probability`. Raises UsageError where it spreads it over more than 64 devices.
    """
    size = logits.shape[-1]
    keys = jax.random.wrap_key_data(layout.enter(keys, keys.ndim - 2))
    noisy = jax.lax.stop_gradient(logits.astype(jnp.float32)) + _noise(keys, size, layout)
    best, token = jnp.max(noisy, axis=-1), jnp.argmax(noisy, axis=-1).astype(jnp.int32)
    if layout.parts(VOCAB) == 1:
        return token
    token += layout.index(VOCAB) * size
    best, token = (layout.exchange(x[None], VOCAB, split=x.ndim, join=0) for x in (best, token))
    return jnp.take_along_axis(token, jnp.argmax(best, axis=0)[None], axis=0)[0]


def _noise(keys: Key[Array, "*joined"], size: int, layout: Layout) -> Float[Array, "*joined vocab"]:
    """Of this device's tokens, in blocks that no device shares: it draws none that are others'."""
    parts = layout.parts(VOCAB)
    block = size * parts // lcm(*(n for n in range(1, DEVICES + 1) if size * parts % n == 0))
    if size % block:
        raise UsageError(
            f"a vocabulary of {size * parts} spread over {parts} devices: draws are for {DEVICES} at most"
        )
    blocks = layout.index(VOCAB) * (size // block) + jnp.arange(size // block)

    def one(key: Key[Array, ""], number: Int[Array, ""]) -> Float[Array, "block"]:
        # With few bits no token of less than 1e-7 of the likeliest's probability would ever be drawn.
        return jax.random.gumbel(jax.random.fold_in(key, number), (block,), jnp.float32, mode="high")

    every = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(keys.reshape(-1), blocks)
    return every.reshape(*keys.shape, size)
