"""Texts drawn after prompts, in batches, up to stop strings."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config.errors import UsageError
from jaxlm.config.sampling import Options
from jaxlm.evaluate.results import Subject
from jaxlm.evaluate.score import batches, right_padded
from jaxlm.evaluate.tokens import Ids
from jaxlm.layers.contracts import Tokens
from jaxlm.models.encoder import Encoder
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.sampling import loop
from jaxlm.sampling.logits import sample_keys
from jaxlm.sampling.text import settings, text_pieces

STEPS = 16
"""Tokens drawn between two looks for stop strings."""


@dataclass(frozen=True)
class Drawn:
    """Text after a prompt, without the stop string."""

    text: str
    cut: bool
    """Whether the prompt had to be shortened on the left."""


def draw(subject: Subject, prompts: Sequence[Ids], options: Options, stop: Sequence[str]) -> list[list[Drawn]]:
    """`options.samples` texts for each prompt of tokens, BOS included.

    A text ends before the first of the stop strings that occurs in it, at EOS, or after `options.tokens`. A prompt
    longer than leaves room for them in `subject.length` loses its first tokens. What is drawn depends on the
    prompt, the options and the sample's number alone. Raises UsageError for a model that cannot generate, and where
    no prompt would be left.
    """
    if isinstance(subject.model, Encoder | EncoderDecoder):
        raise UsageError("an encoder or encoder-decoder goes on with no text: this task wants a decoder or RWKV")
    most = subject.length - options.tokens
    if most < 1:
        raise UsageError(
            f"draw.tokens is {options.tokens}: the model reads {subject.length} tokens, prompt and answer together"
        )
    subject = dataclasses.replace(subject, model=loop.unstacked(subject.model))
    jobs = [(prompt, number) for prompt in prompts for number in range(options.samples)]
    found: list[Drawn | None] = [None] * len(jobs)
    for chosen in batches([len(prompt) + options.tokens for prompt, _ in jobs], subject.length):
        rows = [jobs[index] for index in chosen]
        for index, text in zip(chosen, _batch(subject, rows, options, stop, most)):
            found[index] = Drawn(text, cut=len(jobs[index][0]) > most)
    return [found[start : start + options.samples] for start in range(0, len(found), options.samples)]


def _batch(
    subject: Subject, jobs: Sequence[tuple[Ids, int]], options: Options, stop: Sequence[str], most: int
) -> list[str]:
    """One batch; its rows are rounded up to a power of two by rows of padding, which stay empty."""
    tokenizer, rows = subject.tokenizer, 1 << (len(jobs) - 1).bit_length()
    prompts = [prompt[-most:] for prompt, _ in jobs]
    inputs = right_padded(prompts, subject, max(map(len, prompts)), rows)
    if options.reading == "prefix" or (options.reading == "trained" and subject.prefixed):
        lengths = jnp.sum(inputs.segments, axis=1, keepdims=True)
        inputs = Tokens(inputs.ids, inputs.segments, inputs.positions, prefix=lengths * inputs.segments)
    # The prompt takes part: the same noise would make texts of two prompts alike.
    mixed = [(zlib.crc32(prompt.astype(np.int32).tobytes()) + number) % 2**31 for prompt, number in jobs]
    numbers = jnp.asarray(mixed + [0] * (rows - len(jobs)), jnp.int32)
    keys = sample_keys(jnp.full(rows, options.seed), numbers)
    request = loop.Request.of(
        settings(options, rows), keys, tokens=options.tokens, stop=tokenizer.eos, pad=tokenizer.pad
    )
    state = loop.start(subject.model, inputs, request, tokens=options.tokens, call=subject.call)
    while True:
        ids, lengths, done = jax.device_get((state.ids, state.lengths, state.done))
        texts = ["".join(text_pieces(tokenizer, [row[:n]])) for row, n in zip(ids, lengths[: len(jobs)])]
        ended = np.array([any(one in text for one in stop) for text in texts] + [True] * (rows - len(jobs)))
        if (done | ended).all():
            return [before(text, stop) for text in texts]
        state = dataclasses.replace(state, done=jnp.asarray(done | ended))
        state = loop.continue_(subject.model, request, state, STEPS, call=subject.call)


def before(text: str, stop: Sequence[str]) -> str:
    """The text up to the first place where one of the stop strings begins."""
    places = [text.find(one) for one in stop if one in text]
    return text[: min(places)] if places else text
