"""The one log-probability: float32, and no shift.

`targets` are already aligned with `logits`: the caller of a causal model passes the *next* token of each position,
as `Batch.targets` holds it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def log_probability(
    logits: Float[Array, "*batch vocab"], targets: Int[Array, "*batch"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Each target's log-probability in nats, and logsumexp(logits), both float32.

    Targets outside [0, vocab) give NaN.
    """
    logits = logits.astype(jnp.float32)
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    # A negative index would count from the end of the vocabulary.
    targets = jnp.where(targets < 0, logits.shape[-1], targets)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1, mode="fill", fill_value=jnp.nan)
    return chosen[..., 0] - normalizer, normalizer


def log_probabilities(logits: Float[Array, "*batch vocab"]) -> Float[Array, "*batch vocab"]:
    """Every token's log-probability in nats, float32."""
    return jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
