"""Which experts a token goes through."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jaxlm import config
from jaxlm.layers.contracts import Call
from jaxlm.layers.moe.kernel import Kernel


@struct.dataclass
class Routing:
    """The router's decision for every token; padding chooses nothing."""

    choices: Int[Array, "row pos k"]
    """Chosen experts, best first; the number of experts where the token is padding."""
    weights: Float[Array, "row pos k"]
    """Factors of the chosen experts' outputs; float32."""
    probabilities: Float[Array, "row pos experts"]
    """What the load balance pulls at: scores that sum to 1; float32."""
    logits: Float[Array, "row pos experts"]
    real: Bool[Array, "row pos"]
    """Where there is a token."""

    def chosen(self) -> Int[Array, "row pos experts"]:
        """1 where a token goes through an expert."""
        experts = self.logits.shape[-1]
        return jnp.sum(jax.nn.one_hot(self.choices, experts, dtype=jnp.int32), axis=-2)


def route(
    kernel: Kernel, x: Float[Array, "row pos embed"], segments: Int[Array, "row pos"], kind: config.Moe, call: Call
) -> Routing:
    """Scores of all experts in float32, and the `top_k` highest; of equal scores the expert with the lower number.

    The product is in full float32 on every backend (a TPU would multiply in bfloat16): a rounded logit is another
    expert. No gradient flows through the choice itself, only through the chosen scores.
    """
    logits = jnp.einsum(
        "rpe,ex->rpx",
        x.astype(jnp.float32),
        kernel.gathered(jnp.float32, call),
        precision=jax.lax.Precision.HIGHEST,
    )
    match kind.scores:
        case "softmax":
            probabilities = scores = jax.nn.softmax(logits, axis=-1)
        case "sigmoid":
            scores = jax.nn.sigmoid(logits)
            probabilities = scores / jnp.sum(scores, axis=-1, keepdims=True)
    weights, choices = jax.lax.top_k(scores, kind.top_k)
    if kind.weights == "renormalized":
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    real = segments > 0
    return Routing(
        choices=jnp.where(real[..., None], choices, kind.experts),
        weights=jnp.where(real[..., None], weights, 0.0),
        probabilities=probabilities,
        logits=logits,
        real=real,
    )
