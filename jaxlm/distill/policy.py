"""Texts that a student writes itself, to learn of its teacher how it should have: before `prepare`, no gradient.

A row is the beginning of its first document and what the student makes of it; what else the row held is left out.
Where labels are asked for beside a policy gradient, every other row stays as it is, and has them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Key

from jaxlm.config.distillation import OffPolicy, OnPolicy, Policy, PolicyGradient
from jaxlm.config.errors import UsageError
from jaxlm.distill.student import kept
from jaxlm.layers import random
from jaxlm.layers.cache import Cache
from jaxlm.layers.contracts import Batch, Call, Memory, Model, Output, RowKeys, Tokens
from jaxlm.layers.logprob import log_probabilities, log_probability
from jaxlm.layers.stack import Stack
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.objectives.chunks import sums_and_tokens_by_chunk
from jaxlm.sampling.logits import Settings
from jaxlm.sampling.loop import generate, unstacked

CHUNKS = 8
"""Of positions, whose logits are there at once where drawn tokens are judged."""


def rollout(
    policy: Policy,
    model: Model,
    teacher: Model,
    batch: Batch,
    key: Key[Array, ""],
    call: Call,
    *,
    stop: int | None,
    labels: bool = False,
    pad: int = 0,
) -> Batch:
    """The batch that both models are to read: the given one, or one of the same shape that the student wrote.

    Pure, and to be jitted. Texts end with the token `stop`. Every text depends on its row's own beginning and
    number alone. After `PolicyGradient` `extra` holds each token's "importance" and "returns", and with `labels`
    "own", 1 for tokens of rows that the student wrote: those of an even number. Raises UsageError for models that
    do not go on from the left by themselves, tokens that the teacher does not have, and short rows.
    """
    model, teacher = (jax.lax.stop_gradient(kept(one)) for one in (model, teacher))
    if model.config.vocab > teacher.config.vocab and not isinstance(policy, OffPolicy):
        raise UsageError(
            f"model.vocab is {model.config.vocab}: the student could draw tokens beyond the teacher's "
            f"{teacher.config.vocab}; use as many"
        )
    match policy:
        case OffPolicy():
            return batch
        case OnPolicy(share, tokens, prompt, temperature):

            def own(batch: Batch) -> Batch:
                return written(model, batch, key, call, tokens, prompt, temperature=temperature, stop=stop, pad=pad)

            chance = jax.random.uniform(jax.random.fold_in(key, random.site("policy.share")))
            return jax.lax.cond(chance < share, own, lambda batch: batch, batch)
        case PolicyGradient(mix, kind, tokens, prompt):
            both = mixture(model, teacher, mix) if mix else model
            new = written(both, batch, key, call, tokens, prompt, temperature=1.0, stop=stop, pad=pad)
            theirs, ours = (judged(one, new, call) for one in (teacher, model))
            rewards = theirs - ours
            own = jnp.where(new.weights > 0, importance(rewards, mix), 1.0)
            found = {"importance": own, "returns": returns(rewards, new.weights, kind)}
            new = new.replace(extra={**new.extra, **found})
            return _beside(new, batch) if labels else new


def _beside(own: Batch, data: Batch) -> Batch:
    """Rows of an even number that the student wrote, and the data's of an odd one (the pretraining loss of MiniLLM,
    arXiv:2306.08543, section 2.3, is on texts of the data).
    """
    even = data.rows % 2 == 0
    blank = {"importance": jnp.ones_like(data.weights), "returns": jnp.zeros_like(data.weights)}
    data = data.replace(extra={**data.extra, **blank})
    both = jax.tree.map(lambda a, b: jnp.where(even.reshape(-1, *(1,) * (a.ndim - 1)), a, b), own, data)
    told = jnp.broadcast_to(even[:, None], data.weights.shape).astype(data.weights.dtype)
    return both.replace(extra={**both.extra, "own": told})


def written(
    model: Model,
    batch: Batch,
    key: Key[Array, ""],
    call: Call,
    tokens: int,
    prompt: int,
    *,
    temperature: float,
    stop: int | None,
    pad: int,
) -> Batch:
    """Rows of beginnings and up to `tokens` drawn tokens, which are the targets, of weight 1."""
    rows, length = batch.targets.shape
    if isinstance(model, EncoderDecoder) or batch.source is not None:
        raise UsageError("texts of an encoder-decoder's own are not drawn: use a decoder, or policy off_policy")
    if not 0 < tokens < length:
        raise UsageError(f"policy.tokens is {tokens}: rows of {length} tokens need 1 for a beginning at least")
    counts = beginnings(batch, prompt, length - tokens)
    place = jnp.arange(length)[None]
    there = place < counts[:, None]
    inputs = batch.inputs
    begun = Tokens(
        jnp.where(there, inputs.ids, pad), there.astype(jnp.int32), jnp.where(there, inputs.positions, 0)
    )
    begun = jax.tree.map(lambda x: x[:, : length - tokens], begun)
    keys = random.row_keys(jax.random.fold_in(key, random.site("policy.draw")), batch.rows)
    settings = Settings.of(rows, temperature=temperature)
    drawn = generate(model, begun, settings, keys, tokens=tokens, stop=stop, call=call, pad=pad)
    after = place - counts[:, None]
    new = (after >= 0) & (after < drawn.lengths[:, None])
    ids = jnp.take_along_axis(drawn.ids, jnp.clip(after, 0, tokens - 1), axis=1)
    ids = jnp.where(there, inputs.ids, jnp.where(new, ids, pad)).astype(inputs.ids.dtype)
    real = there | new
    following = jnp.pad(new[:, 1:], ((0, 0), (0, 1)))
    return batch.replace(
        inputs=inputs.replace(
            ids=ids,
            segments=real.astype(inputs.segments.dtype),
            positions=jnp.where(real, inputs.positions[:, :1] + place, 0).astype(inputs.positions.dtype),
        ),
        targets=jnp.where(following, jnp.pad(ids[:, 1:], ((0, 0), (0, 1))), 0).astype(batch.targets.dtype),
        weights=following.astype(batch.weights.dtype),
        documents=jnp.where(real, batch.documents[:, :1], 0).astype(batch.documents.dtype),
    )


def beginnings(batch: Batch, prompt: int, most: int) -> Int[Array, "row"]:
    """Tokens of each row's beginning: so many of its first document, or all before the first target that counts."""
    segments = batch.inputs.segments
    own = (segments == segments[:, :1]) & (segments > 0)
    count = jnp.sum(jnp.cumprod(own, axis=1), axis=1)
    counts = own & (batch.weights > 0)
    before = jnp.where(jnp.any(counts, axis=1), jnp.argmax(counts, axis=1) + 1, count)
    wanted = jnp.full_like(count, prompt) if prompt else before
    return jnp.minimum(jnp.minimum(wanted, count), most).astype(jnp.int32)


# --- MiniLLM -----------------------------------------------------------------------------------------------


def judged(model: Model, batch: Batch, call: Call) -> Float[Array, "row pos"]:
    """The log-probability of each target, in nats."""
    scores = model.scorer(call)

    def terms(hidden: Array, targets: Array) -> tuple[dict[str, Array], Array]:
        log_p, _ = log_probability(scores(hidden), targets, call.layout)
        return {"log_p": jnp.sum(log_p)}, log_p

    hidden = model(batch.inputs, dataclasses.replace(call, taps=())).hidden
    return sums_and_tokens_by_chunk(terms, hidden, (batch.targets,), CHUNKS)[1]


def importance(rewards: Float[Array, "row pos"], mix: float) -> Float[Array, "row pos"]:
    """q / (mix p + (1 - mix) q) of tokens that the mixture drew, by log p - log q (Gu et al. 2023, section 2.2)."""
    return 1 / (mix * jnp.exp(rewards) + 1 - mix)


def returns(
    rewards: Float[Array, "row pos"], weights: Float[Array, "row pos"], kind: str = "length"
) -> Float[Array, "row pos"]:
    """The sum of the rewards log p - log q of all drawn tokens after each, or their mean, 0 where there are none.

    Where the weight is 0 nothing was drawn: padding and beginnings count nowhere (equations 3 and 6).
    """
    drawn = (weights > 0).astype(jnp.float32)
    rewards = jnp.where(drawn > 0, rewards.astype(jnp.float32), 0.0)

    def after(x: Float[Array, "row pos"]) -> Float[Array, "row pos"]:
        return jnp.flip(jnp.cumsum(jnp.flip(x, axis=1), axis=1), axis=1) - x

    ahead = after(rewards)
    if kind == "length":
        ahead = ahead / jnp.maximum(after(drawn), 1.0)
    return drawn * ahead


@struct.dataclass
class Mixture:
    """A student and its teacher drawing together: mix p + (1 - mix) q of each next token (section 2.2)."""

    student: Model
    teacher: Model
    mix: float = struct.field(pytree_node=False)
    layers: int = struct.field(pytree_node=False)
    """Caches that are the student's, of those of both."""

    @property
    def config(self) -> Any:
        """The student's."""
        return self.student.config

    @property
    def blocks(self) -> Stack:
        """Nothing to take apart: both are unstacked."""
        return Stack((), (), (), 0)

    def __call__(
        self,
        inputs: Tokens,
        call: Call,
        *,
        memory: Memory | None = None,
        cache: Cache | None = None,
        key: RowKeys | None = None,
    ) -> Output:
        """Hidden states of both side by side, in float32."""
        parts = (None, None) if cache is None else self._halves(cache)
        outputs = [one(inputs, call, cache=part) for one, part in zip((self.student, self.teacher), parts)]
        hidden = jnp.concatenate([one.hidden.astype(jnp.float32) for one in outputs], axis=-1)
        if cache is None:
            return Output(hidden)
        caches = [one.cache for one in outputs]
        return Output(hidden, Cache(sum((one.layers for one in caches), ()), caches[0].lengths))

    def _halves(self, cache: Cache) -> tuple[Cache, Cache]:
        cut = (cache.layers[: self.layers], cache.layers[self.layers :])
        return tuple(Cache(layers, cache.lengths) for layers in cut)

    def encode(self, source: Tokens, call: Call, *, key: RowKeys | None = None) -> Memory:
        """Neither has an encoder."""
        raise UsageError("a mixture of two decoders has no encoder")

    def scorer(self, call: Call) -> Callable[[Float[Array, "... both"]], Float[Array, "... vocab"]]:
        """Log-probabilities of the mixture, over the student's vocabulary; the teacher's is cut to it."""
        ours, theirs, width = self.student.scorer(call), self.teacher.scorer(call), self.student.config.embed
        vocab = min(self.student.config.vocab, self.teacher.config.vocab)

        def scores(hidden: Float[Array, "... both"]) -> Float[Array, "... vocab"]:
            q, p = (
                log_probabilities(x[..., :vocab]) for x in (ours(hidden[..., :width]), theirs(hidden[..., width:]))
            )
            return jnp.logaddexp(jnp.log1p(-self.mix) + q, jnp.log(self.mix) + p)

        return scores

    def logits(self, hidden: Float[Array, "... both"], call: Call) -> Float[Array, "... vocab"]:
        """The same of one call."""
        return self.scorer(call)(hidden)

    def empty_cache(self, rows: int, length: int, call: Call) -> Cache:
        """Of both, one after the other."""
        both = [one.empty_cache(rows, length, call) for one in (self.student, self.teacher)]
        return Cache(sum((one.layers for one in both), ()), both[0].lengths)


def mixture(model: Model, teacher: Model, mix: float) -> Mixture:
    """Of two models that go on from the left, with their layers apart."""
    model, teacher = unstacked(model), unstacked(teacher)
    return Mixture(model, teacher, mix, len(model.blocks.layers()))
