"""The one log-probability: float32, and no shift.

`targets` are already aligned with `logits`: the caller of a causal model passes the *next* token of each position,
as `Batch.targets` holds it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.parallel.layout import Layout

VOCAB = "vocab"
NEVER = -1e30
"""A logit of a token that cannot be: finite, so that its probability times anything is zero."""


def log_probability(
    logits: Float[Array, "*joined vocab"], targets: Int[Array, "*batch"], layout: Layout
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Each target's log-probability in nats, and logsumexp(logits), both float32.

    Targets outside [0, vocab) give NaN. Where the layout spreads the vocabulary within `Layout.spmd`, logits are a
    device's part of them for the tokens of all devices it joins, as `Model.logits` returns them there; targets and
    results are for its own tokens.
    """
    logits = logits.astype(jnp.float32)
    if layout.parts(VOCAB) > 1:
        return _spread(logits, targets, layout)
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    return _chosen(logits, targets) - normalizer, normalizer


def _spread(
    logits: Float[Array, "*joined vocab"], targets: Int[Array, "*batch"], layout: Layout
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """A device scores its part of the vocabulary for all joined tokens, and hears of its own from the others."""
    last = targets.ndim - 1
    each = jax.nn.logsumexp(logits, axis=-1)[None]
    normalizer = jax.nn.logsumexp(layout.exchange(each, VOCAB, split=last + 1, join=0), axis=0)
    return _chosen_anywhere(logits, targets, layout) - normalizer, normalizer


def _chosen_anywhere(
    logits: Float[Array, "*joined vocab"], targets: Int[Array, "*batch"], layout: Layout
) -> Float[Array, "*batch"]:
    """The targets' logits, whichever device has them."""
    size, last = logits.shape[-1], targets.ndim - 1
    own = layout.enter(targets, last) - layout.index(VOCAB) * size
    here = (own >= 0) & (own < size)
    chosen = layout.reduce(jnp.where(here, _chosen(logits, jnp.where(here, own, 0)), 0.0), (VOCAB,), last)
    known = (targets >= 0) & (targets < size * layout.parts(VOCAB))
    return jnp.where(known, chosen, jnp.nan)


def likeliest(
    logits: Float[Array, "*joined vocab"], targets: Int[Array, "*batch"], layout: Layout
) -> Float[Array, "*batch"]:
    """1 where the target is the token that is drawn greedily, the first of those with the largest logit, else 0:
    without a gradient, shapes as above.
    """
    logits = jax.lax.stop_gradient(logits.astype(jnp.float32))
    first = jnp.argmax(logits, axis=-1)
    if layout.parts(VOCAB) > 1:
        own = (jnp.max(logits, axis=-1), first + layout.index(VOCAB) * logits.shape[-1])
        # One row a device, in the order of its part of the vocabulary.
        best, places = (layout.exchange(each[None], VOCAB, split=targets.ndim, join=0) for each in own)
        first = jnp.take_along_axis(places, jnp.argmax(best, axis=0)[None], axis=0)[0]
    return (first == targets).astype(jnp.float32)


@jax.custom_vjp
def _chosen(logits: Float[Array, "*batch vocab"], targets: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """logits[..., targets]; NaN outside the vocabulary."""
    # A negative index would count from the end of the vocabulary.
    targets = jnp.where(targets < 0, logits.shape[-1], targets)
    return jnp.take_along_axis(logits, targets[..., None], axis=-1, mode="fill", fill_value=jnp.nan)[..., 0]


def _chosen_forward(logits: Array, targets: Array) -> tuple[Array, tuple[Array, int]]:
    return _chosen(logits, targets), (targets, logits.shape[-1])


def _chosen_backward(saved: tuple[Array, int], cotangent: Array) -> tuple[Array, None]:
    targets, vocab = saved
    by = {"cpu": _by_scatter, "default": _by_comparison}
    by = {platform: functools.partial(f, vocab=vocab) for platform, f in by.items()}
    return jax.lax.platform_dependent(targets, cotangent, **by), None


def _by_comparison(
    targets: Int[Array, "*batch"], cotangent: Float[Array, "*batch"], *, vocab: int
) -> Float[Array, "*batch vocab"]:
    """The target's logit takes the gradient; fuses with the softmax's own, where a TPU would sort a scatter."""
    places = jax.lax.broadcasted_iota(targets.dtype, (*targets.shape, vocab), targets.ndim)
    return jnp.where(places == targets[..., None], cotangent[..., None], 0.0)


def _by_scatter(
    targets: Int[Array, "*batch"], cotangent: Float[Array, "*batch"], *, vocab: int
) -> Float[Array, "*batch vocab"]:
    """The same, by far the faster on CPUs."""
    flat = jnp.where(targets < 0, vocab, targets).reshape(-1)
    zeros = jnp.zeros((flat.size, vocab), cotangent.dtype)
    placed = zeros.at[jnp.arange(flat.size), flat].set(cotangent.reshape(-1), mode="drop")
    return placed.reshape(*targets.shape, vocab)


_chosen.defvjp(_chosen_forward, _chosen_backward)


def log_probabilities(logits: Float[Array, "*batch vocab"]) -> Float[Array, "*batch vocab"]:
    """Every token's log-probability in nats, float32."""
    return jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)


def own_log_probabilities(logits: Float[Array, "*joined vocab"], layout: Layout) -> Float[Array, "*joined vocab"]:
    """The same where the layout may spread the vocabulary: a device's part of it, for the tokens of all devices it
    joins. What is summed over these tokens of the vocabulary is whole behind `over_vocabulary`.
    """
    logits = logits.astype(jnp.float32)
    if layout.parts(VOCAB) == 1:
        return jax.nn.log_softmax(logits, axis=-1)
    each = layout.collect(jax.nn.logsumexp(logits, axis=-1)[None], VOCAB, dim=0)
    return logits - jax.nn.logsumexp(each, axis=0)[..., None]


def over_vocabulary(x: Float[Array, "*joined vocab"], layout: Layout) -> Float[Array, "*batch"]:
    """The sum over the vocabulary, wherever its parts are, of a device's own tokens."""
    return layout.reduce(jnp.sum(x, axis=-1), (VOCAB,), x.ndim - 2)


def first_tokens(logits: Float[Array, "*joined vocab"], vocab: int, layout: Layout) -> Float[Array, "*joined some"]:
    """Logits of the first `vocab` tokens: the rest are cut off, or where the layout spreads them, `NEVER`."""
    parts, size = layout.parts(VOCAB), logits.shape[-1]
    if size * parts <= vocab:
        return logits
    if parts == 1:
        return logits[..., :vocab]
    return jnp.where(layout.index(VOCAB) * size + jnp.arange(size) < vocab, logits, NEVER)


def some_log_probabilities(
    logits: Float[Array, "*joined vocab"], tokens: Int[Array, "*batch some"], layout: Layout
) -> tuple[Float[Array, "*batch some"], Float[Array, "*batch"]]:
    """The log-probability of some tokens at each place, and of all others together, nats, float32.

    Tokens outside [0, vocab) give NaN, and none may be named twice. Spread as in `log_probability`.
    """
    logits, last = logits.astype(jnp.float32), tokens.ndim - 2
    size, spread = logits.shape[-1], layout.parts(VOCAB) > 1
    own = layout.enter(tokens, last) - layout.index(VOCAB) * size if spread else tokens
    own = jnp.where((own >= 0) & (own < size), own, size)
    chosen = jnp.take_along_axis(logits, own, axis=-1, mode="fill", fill_value=0.0)
    others = jax.nn.logsumexp(jnp.put_along_axis(logits, own, NEVER, axis=-1, inplace=False, mode="drop"), axis=-1)
    whole = jax.nn.logsumexp(logits, axis=-1)
    if spread:
        chosen = layout.reduce(chosen, (VOCAB,), last)
        parts = (layout.exchange(x[None], VOCAB, split=last + 1, join=0) for x in (others, whole))
        others, whole = (jax.nn.logsumexp(x, axis=0) for x in parts)
    known = (tokens >= 0) & (tokens < size * layout.parts(VOCAB))
    return jnp.where(known, chosen, jnp.nan) - whole[..., None], others - whole


def largest_log_probabilities(
    logits: Float[Array, "*joined vocab"], count: int, layout: Layout
) -> tuple[Float[Array, "*batch count"], Int[Array, "*batch count"]]:
    """The log-probabilities of the `count` likeliest tokens at each place, falling, and those tokens; of equally
    likely ones the first. Spread as in `log_probability`.
    """
    whole = own_log_probabilities(logits, layout)
    best, tokens = jax.lax.top_k(whole, min(count, whole.shape[-1]))
    if layout.parts(VOCAB) == 1:
        return best, tokens
    tokens = tokens + layout.index(VOCAB) * whole.shape[-1]
    split = best.ndim - 1
    parts = (layout.exchange(each[None], VOCAB, split=split, join=0) for each in (best, tokens))
    # Every device's own in the order of its part of the vocabulary, so that the first of equals is first here too.
    best, tokens = (jnp.concatenate(list(each), axis=-1) for each in parts)
    best, places = jax.lax.top_k(best, count)
    return best, jnp.take_along_axis(tokens, places, axis=-1)
