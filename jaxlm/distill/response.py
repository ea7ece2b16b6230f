"""Divergences of a student's distributions over tokens from a teacher's, of each token by itself, in nats.

The caller sums them up with weights. Float32 throughout, and of whole distributions: what a teacher's list of
likely tokens leaves out is one more outcome, never divided away.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.config.distillation import (
    Divergence,
    ForwardKl,
    Jsd,
    ReverseKl,
    SkewedKl,
    SkewedReverseKl,
    SoftLabels,
    TotalVariation,
)
from jaxlm.layers.logprob import (
    NEVER,
    VOCAB,
    first_tokens,
    log_probabilities,
    over_vocabulary,
    own_log_probabilities,
    some_log_probabilities,
)
from jaxlm.parallel.layout import Layout

Logs = Float[Array, "*batch outcome"]
"""Log-probabilities of outcomes, one of which happens."""
ROUNDING = 2.0**-23
"""What probabilities in float32 that sum to 1 may lack: no evidence that nothing else can happen."""


def divergence(
    kind: Divergence, teacher: Float[Array, "*joined theirs"], student: Float[Array, "*joined ours"], layout: Layout
) -> Float[Array, "*batch"]:
    """Each token's, from the logits of both models over the same vocabulary.

    Where the layout spreads the vocabulary, logits and results are as in `layers.logprob.log_probability`.
    """
    temperature = _temperature(kind)
    t, s = (own_log_probabilities(x.astype(jnp.float32) / temperature, layout) for x in (teacher, student))
    return over_vocabulary(summands(kind, t, s), layout)


def divergence_of_labels(
    kind: Divergence, teacher: Float[Array, "*batch labels"], student: Float[Array, "*batch labels"]
) -> Float[Array, "*batch"]:
    """Each text's, from both models' scores of the same labels, which no layout spreads."""
    t, s = (log_probabilities(x.astype(jnp.float32) / _temperature(kind)) for x in (teacher, student))
    return jnp.sum(summands(kind, t, s), axis=-1)


def divergence_of_likeliest(
    kind: Divergence,
    likely: Float[Array, "*batch likeliest"],
    tokens: Int[Array, "*batch likeliest"],
    student: Float[Array, "*joined vocab"],
    layout: Layout,
) -> Float[Array, "*batch"]:
    """Each token's, from a teacher's log-probabilities of some tokens: all others are one outcome more.

    A lower bound of the divergence over the whole vocabulary; it is 0 only where the student gives these tokens the
    teacher's probabilities, and not their ratios alone. A log-probability of -inf is of no token. Raises ValueError
    for softened distributions: the others' share at another temperature cannot be told.
    """
    if _temperature(kind) != 1.0:
        raise ValueError(f"temperature {_temperature(kind)}: only the teacher's whole distribution can be softened")
    there = likely > NEVER
    t = jnp.where(there, likely.astype(jnp.float32), NEVER)
    s, others = some_log_probabilities(student, jnp.where(there, tokens, -1), layout)
    s = jnp.where(there, s, NEVER)
    left = jnp.log(jnp.maximum(1.0 - jnp.sum(jnp.exp(t), axis=-1), ROUNDING))
    left = jnp.where(others > NEVER / 2, left, NEVER)  # no token is left out
    t, s = (jnp.concatenate([x, rest[..., None]], axis=-1) for x, rest in ((t, left), (s, others)))
    return jnp.sum(summands(kind, t, s), axis=-1)


def summands(kind: Divergence, teacher: Logs, student: Logs) -> Logs:
    """What a divergence is the sum of over outcomes; for `SoftLabels` they are of softened distributions."""
    match kind:
        case SoftLabels(temperature):
            return temperature**2 * _kl(teacher, student)
        case ForwardKl():
            return _kl(teacher, student)
        case ReverseKl():
            return _kl(student, teacher)
        case SkewedKl(skew):
            return _kl_to_mixture(teacher, student, skew)
        case SkewedReverseKl(skew):
            return _kl_to_mixture(student, teacher, skew)
        case Jsd(beta, scale):
            theirs, ours = _kl_to_mixture(teacher, student, beta), _kl_to_mixture(student, teacher, 1 - beta)
            both = beta * theirs + (1 - beta) * ours
            return both / (beta * (1 - beta)) if scale == "normalized" else both
        case TotalVariation():
            return 0.5 * jnp.abs(jnp.exp(teacher) - jnp.exp(student))


def _temperature(kind: Divergence) -> float:
    return kind.temperature if isinstance(kind, SoftLabels) else 1.0


def _kl(p: Logs, q: Logs) -> Logs:
    return jnp.exp(p) * (p - q)


def _kl_to_mixture(p: Logs, q: Logs, share: float) -> Logs:
    """KL(p || share p + (1 - share) q), 0 < share < 1: by the ratio, which is 1 where the mixture is p."""
    return -jnp.exp(p) * jnp.logaddexp(jnp.log(share), jnp.log1p(-share) + q - p)


def shared_vocabulary(
    teacher: Float[Array, "*joined theirs"], student: Float[Array, "*joined ours"], vocab: int, layout: Layout
) -> tuple[Float[Array, "*joined shared"], Float[Array, "*joined shared"]]:
    """Both models' logits over the first `vocab` tokens, which they share: tables are padded to other sizes.

    Where the layout spreads the vocabulary, a device's part is that of the student's table.
    """
    parts, own = layout.parts(VOCAB), student.shape[-1]
    if parts > 1 and teacher.shape[-1] != own:
        # A device's part of the one table holds other tokens than its part of the other.
        whole = layout.collect(teacher, VOCAB, dim=teacher.ndim - 1)[..., : own * parts]
        missing = own * parts - whole.shape[-1]
        whole = jnp.pad(whole, [(0, 0)] * (whole.ndim - 1) + [(0, missing)])
        first = layout.index(VOCAB) * own
        teacher = jnp.take(whole, first + jnp.arange(own), axis=-1)
    return first_tokens(teacher, vocab, layout), first_tokens(student, vocab, layout)
