"""Several answers to prompts, each until a token or a text ends it, and how likely each token of them was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.sampling import Options
from jaxlm.layers.contracts import Call, Memory, Model, Tokens
from jaxlm.layers.logprob import log_probability
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.sampling import loop
from jaxlm.sampling.text import CHUNK, as_read, inputs_of, keys_of, right_padded, settings
from jaxlm.tokenizers import Tokenizer
from jaxlm.tokenizers.protocol import stream

Prompt = str | tuple[int, ...]
"""A text, or the very tokens that the model is to see, BOS included."""


@dataclass(frozen=True)
class Likely:
    """A token of an answer by the model alone (temperature 1, nothing cut off), in nats."""

    nats: float
    best: tuple[tuple[int, float], ...]
    """The likeliest tokens in its place, in order, and their log-probabilities."""


@dataclass(frozen=True)
class Drawn:
    """One answer."""

    ids: list[int]
    """Without the token that ended it; with all of a text that did."""
    text: str
    """Without the text that ended it."""
    tokens: int
    """How many were drawn, one that ended it included."""
    stopped: bool
    """The model, or a text that was to end it, ended the answer; otherwise it was cut at `options.tokens`."""
    likely: tuple[Likely, ...] = ()
    """Of each of `ids`, where that was asked for."""


@dataclass(frozen=True)
class Asked:
    """Prompts as the model reads them: `options.samples` rows for each, those of the first prompt first."""

    inputs: Tokens
    memory: Memory | None
    names: list[str]
    """What each row's randomness is mixed with."""
    lengths: list[int]
    """Tokens of each prompt: of an encoder-decoder's those of the source."""


def asked(model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], options: Options, call: Call) -> Asked:
    """Prompts of one kind. Raises UsageError for tokens that are no prompt of the model's."""
    rows = [prompt for prompt in prompts for _ in range(options.samples)]
    if isinstance(rows[0], str):
        inputs, memory = inputs_of(model, tokenizer, rows, options, call)
        read = inputs if memory is None else memory
        return Asked(inputs, memory, rows, np.sum(read.segments > 0, axis=1)[:: options.samples].tolist())
    if isinstance(model, EncoderDecoder):
        raise UsageError("an encoder-decoder reads its source as text, not as tokens")
    for row in prompts:
        if not row or not all(0 <= token < tokenizer.vocab for token in row):
            raise UsageError(f"a prompt of tokens needs at least one, each at least 0 and below {tokenizer.vocab}")
    inputs = as_read(right_padded([np.array(row, np.int32) for row in rows], tokenizer.pad), options)
    return Asked(inputs, None, [repr(list(row)) for row in rows], [len(row) for row in prompts])


def several(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Asked,
    options: Options,
    call: Call,
    *,
    stop: int,
    texts: Sequence[str] = (),
    best: int | None = None,
) -> list[Drawn]:
    """An answer for each row; the token `stop` or any of `texts` ends it. With `best` it is said how likely each
    token was, and which `best` tokens were likeliest, by one more pass over the whole.

    Sample i of a prompt is what `sampling.text.stream` gives as sample i, and of tokens `sampling.text.answer` as
    its only one. Raises UsageError for options outside their range, and prompts too long for the model; Failure
    where the model's numbers are not finite.
    """
    model = loop.unstacked(model)
    numbers = [row % options.samples for row in range(len(prompts.names))]
    drawing = loop.Request.of(
        settings(options, len(numbers)),
        keys_of(options, prompts.names, numbers),
        tokens=options.tokens,
        stop=stop,
        pad=tokenizer.pad,
    )
    state = loop.start(model, prompts.inputs, drawing, tokens=options.tokens, call=call, memory=prompts.memory)
    steps = CHUNK if texts else options.tokens
    while not bool(jnp.all(state.done)):
        state = loop.continue_(model, drawing, state, steps, call=call)
        ended = [_ends(tokenizer, ids, texts) is not None for ids, _ in _rows(state)] if texts else False
        state = dataclasses.replace(state, done=state.done | jnp.asarray(ended))
    answers = [_drawn(tokenizer, ids, stopped, texts) for ids, stopped in _rows(state)]
    if best is None:
        return answers
    likely = _all_likely(model, prompts, [one.ids for one in answers], call, best)
    return [dataclasses.replace(one, likely=each) for one, each in zip(answers, likely)]


def _rows(state: loop.State) -> Iterator[tuple[Int[np.ndarray, "drawn"], bool]]:
    """(Tokens drawn so far, whether the last of them ended the row)."""
    ids, lengths, stopped = jax.device_get((state.ids, state.lengths, state.stopped))
    return ((row[:length], bool(end)) for row, length, end in zip(ids, lengths, stopped))


def _ends(tokenizer: Tokenizer, ids: Int[np.ndarray, "drawn"], texts: Sequence[str]) -> tuple[int, str] | None:
    """(How many tokens it takes to hold one of the texts, what stands before it), however many there are."""
    whole, longest = "", max(map(len, texts))
    for number, piece in enumerate(stream(tokenizer, ids), start=1):
        begin = max(len(whole) - longest, 0)
        whole += piece
        places = [place for text in texts if (place := whole.find(text, begin)) >= 0]
        if piece and places:
            return min(number, len(ids)), whole[: min(places)]
    return None


def _drawn(tokenizer: Tokenizer, ids: Int[np.ndarray, "drawn"], stopped: bool, texts: Sequence[str]) -> Drawn:
    body = ids[:-1] if stopped else ids
    if texts and (found := _ends(tokenizer, body, texts)):
        return Drawn(body[: found[0]].tolist(), found[1], found[0], True)
    return Drawn(body.tolist(), "".join(stream(tokenizer, body)), len(ids), stopped)


def _all_likely(
    model: Model, prompts: Asked, answers: Sequence[Sequence[int]], call: Call, best: int
) -> Iterator[tuple[Likely, ...]]:
    """Row by row: the logits of one answer exist at once."""
    for row, ids in enumerate(answers):
        if not ids:
            yield ()
            continue
        tokens, memory = (
            jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], part)
            for part in (prompts.inputs, prompts.memory)
        )
        start = int(jnp.sum(tokens.segments[0] > 0))
        nats, others, which = jax.device_get(
            _likely(model, _followed(tokens, start, ids), memory, start, loop.bucket(len(ids)), best, call=call)
        )
        if not np.isfinite(nats[: len(ids)]).all():
            raise Failure("the model's log-probabilities are not finite")
        columns = zip(nats.tolist(), which.tolist(), others.tolist())
        yield tuple(Likely(one, tuple(zip(*pair))) for (one, *pair), _ in zip(columns, ids))


def _followed(prompt: Tokens, start: int, ids: Sequence[int]) -> Tokens:
    """A row of the prompt's tokens and those of its answer, padded to a length that few programs share."""
    width, end = loop.bucket(start + loop.bucket(len(ids))), start + len(ids)
    places = np.arange(width, dtype=np.int32)
    row, real = np.zeros(width, np.int32), places < end
    row[:start], row[start:end] = np.asarray(prompt.ids)[0, :start], ids
    prefix = None if prompt.prefix is None else jnp.asarray((start * real)[None].astype(np.int32))
    columns = (row, real.astype(np.int32), np.where(real, places, 0))
    return Tokens(*(jnp.asarray(one[None]) for one in columns), prefix=prefix)


@jax.jit(static_argnames=("count", "best", "call"))
def _likely(
    model: Any,
    tokens: Tokens,
    memory: Memory | None,
    start: Int[Array, ""] | int,
    count: int,
    best: int,
    *,
    call: Call,
) -> tuple[Float[Array, "count"], Float[Array, "count best"], Int[Array, "count best"]]:
    """Log-probabilities of the `count` tokens from `start` on, and the likeliest in their places."""
    hidden = model(tokens, call, memory=memory).hidden[0]
    logits = model.logits(jax.lax.dynamic_slice_in_dim(hidden, start - 1, count), call).astype(jnp.float32)
    wanted = jax.lax.dynamic_slice_in_dim(tokens.ids[0], start, count)
    nats, normalizer = log_probability(logits, wanted, call.layout)
    found, which = jax.lax.top_k(logits, best)
    return nats, found - normalizer[:, None], which
