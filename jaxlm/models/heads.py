"""From hidden states to scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm import config
from jaxlm.layers.contracts import Call
from jaxlm.layers.initial import Initial
from jaxlm.layers.projection import Weight, gathered, project

Scorer = Callable[[Float[Array, "... embed"]], Float[Array, "... vocab"]]


def initial_embedding(vocab: int, embed: int, init: Initial) -> Weight:
    """Token vectors of standard deviation 0.02."""
    return init.dense("embedding", (vocab, embed), ("vocab", "embed"), std=0.02)


def initial_head(kind: config.Tied | config.Untied, vocab: int, embed: int, init: Initial) -> Weight | None:
    """The head's own matrix, or None where it is tied to the embedding."""
    match kind:
        case config.Tied():
            return None
        case config.Untied():
            return init.dense("head", (embed, vocab), ("embed", "vocab"), bias=kind.bias == "all")


def scorer(embedding: Weight, head: Weight | None, kind: config.Tied | config.Untied, call: Call) -> Scorer:
    """Hidden states -> scores over the vocabulary, soft-capped if the config says so, in the logits' format.

    The head is gathered here, once for every use.
    """
    weight, spec = (embedding, "te,ve->tv") if head is None else (head, "te,ev->tv")
    weight = gathered(weight, call)
    inside = dataclasses.replace(call, layout=call.layout.gathered())

    def scores(hidden: Float[Array, "... embed"]) -> Float[Array, "... vocab"]:
        with jax.named_scope("head"):
            hidden = call.layout.enter(hidden, hidden.ndim - 2)
            flat = hidden.reshape(-1, hidden.shape[-1])
            scores = project(weight, flat, spec, inside).astype(call.precision.logits)
            if kind.softcap is not None:
                scores = kind.softcap * jnp.tanh(scores / kind.softcap)
            return scores.reshape(*hidden.shape[:-1], scores.shape[-1])

    return scores
