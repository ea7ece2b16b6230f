"""Text from prompts: the host's side of the loop that draws tokens."""

from __future__ import annotations

import codecs
import dataclasses
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.config.sampling import Options
from jaxlm.layers.contracts import Call, Memory, Model, RowKeys, Tokens
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.sampling import loop
from jaxlm.sampling.logits import Settings, sample_keys
from jaxlm.tokenizers.protocol import Tokenizer

CHUNK = 8
"""Tokens drawn between two looks at the text."""


@dataclass(frozen=True)
class Sample:
    """A drawn text and how likely each of its tokens was."""

    prompt: str
    text: str
    """What was drawn, without the end token; bytes that are not UTF-8 are U+FFFD."""
    ids: list[int]
    """What was drawn, the end token included if there was one."""
    log_probabilities: list[float]
    """Of each id by the model alone (temperature 1, nothing cut off), given all before it, in nats."""

    def as_json(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """With the prompt's tokens first, as the model saw them; they have no log-probabilities."""
        prompt = [tokenizer.bos, *tokenizer.encode(self.prompt).tolist()]
        return {
            "prompt": self.prompt,
            "text": self.prompt + self.text,
            "ids": prompt + self.ids,
            "tokens": [tokenizer.decode([token]) for token in prompt + self.ids],
            "log_probabilities": [None] * len(prompt) + self.log_probabilities,
        }


def stream(
    model: Model, tokenizer: Tokenizer, prompt: str, options: Options, call: Call, number: int = 0
) -> Iterator[str]:
    """Text after the prompt, piece by piece; joined, the pieces are the text of sample `number` of
    `sample_with_log_probabilities`.

    Raises UsageError where that function does.
    """
    inputs, memory = inputs_of(model, tokenizer, [prompt], options, call)
    keys = keys_of(options, [prompt], [number])
    chunks = _chunks(model, tokenizer, inputs, memory, keys, options, call, tokenizer.eos)
    yield from text_pieces(tokenizer, chunks)


def answer(
    model: Model, tokenizer: Tokenizer, prompt: Int[np.ndarray, "tokens"], options: Options, call: Call, stop: int
) -> Iterator[str]:
    """Text after a prompt of tokens, BOS included, piece by piece, until the token `stop`.

    Raises UsageError for options outside their range, a prompt too long for the model, and a model without a prompt
    of tokens (an encoder-decoder reads its source as text).
    """
    if isinstance(model, EncoderDecoder):
        raise UsageError("an encoder-decoder answers no conversation: jaxlm generate reads its source as text")
    inputs = as_read(right_padded([prompt], tokenizer.pad, loop.bucket(len(prompt))), options)
    keys = keys_of(options, [repr(prompt.tolist())], [0])
    chunks = _chunks(model, tokenizer, inputs, None, keys, options, call, stop)
    yield from text_pieces(tokenizer, chunks)


def text_pieces(tokenizer: Tokenizer, chunks: Iterable[Iterable[SupportsIndex]]) -> Iterator[str]:
    """The text that each chunk of tokens completes; an unfinished UTF-8 sequence waits for its other bytes.

    At the end, what is left becomes U+FFFD. No piece is empty.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for chunk in chunks:
        if piece := decoder.decode(tokenizer.bytes_of(chunk)):
            yield piece
    if piece := decoder.decode(b"", final=True):
        yield piece


def sample_with_log_probabilities(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[str], options: Options, call: Call
) -> list[Sample]:
    """`options.samples` texts for each prompt, those of the first prompt first.

    A sample depends on its prompt, the options and its number alone, not on the other prompts.
    Raises UsageError for options outside their range, prompts too long for the model, and a model that cannot
    generate.
    """
    if not prompts or options.samples < 1:
        raise UsageError(f"{len(prompts)} prompts, samples={options.samples}: both must be at least 1")
    texts = [prompt for prompt in prompts for _ in range(options.samples)]
    numbers = [number for _ in prompts for number in range(options.samples)]
    inputs, memory = inputs_of(model, tokenizer, texts, options, call)
    drawn = loop.generate(
        model,
        inputs,
        settings(options, len(texts)),
        keys_of(options, texts, numbers),
        tokens=options.tokens,
        stop=tokenizer.eos,
        pad=tokenizer.pad,
        call=call,
        memory=memory,
    )
    drawn = jax.device_get(drawn)
    rows = zip(texts, drawn.ids, drawn.lengths, drawn.log_probabilities, strict=True)
    return [_sample(tokenizer, text, ids[:n], log_p[:n]) for text, ids, n, log_p in rows]


def settings(options: Options, rows: int) -> Settings:
    """The same for every row. Raises UsageError for a value outside its range."""
    return Settings.of(
        rows, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, min_p=options.min_p
    )


def keys_of(options: Options, prompts: Sequence[str], numbers: Sequence[int]) -> RowKeys:
    """One for each sample. The prompt takes part: the same noise would make texts of two prompts alike."""
    pairs = zip(prompts, numbers, strict=True)
    mixed = jnp.asarray([(zlib.crc32(prompt.encode()) + number) % 2**31 for prompt, number in pairs], jnp.int32)
    return sample_keys(jnp.full(len(prompts), options.seed), mixed)


def _sample(
    tokenizer: Tokenizer, prompt: str, ids: Int[np.ndarray, "new"], log_p: Float[np.ndarray, "new"]
) -> Sample:
    return Sample(prompt, "".join(text_pieces(tokenizer, [ids])), ids.tolist(), log_p.tolist())


def _chunks(
    model: Model,
    tokenizer: Tokenizer,
    inputs: Tokens,
    memory: Memory | None,
    keys: RowKeys,
    options: Options,
    call: Call,
    stop: int,
) -> Iterator[Int[np.ndarray, "new"]]:
    """The first token by itself, then `CHUNK` at a time."""
    model = loop.unstacked(model)
    request = loop.Request.of(settings(options, 1), keys, tokens=options.tokens, stop=stop, pad=tokenizer.pad)
    state = loop.start(model, inputs, request, tokens=options.tokens, call=call, memory=memory)
    shown = 0
    while True:
        length, done = int(state.lengths[0]), bool(state.done[0])
        yield np.asarray(state.ids)[0, shown:length]
        if done:
            return
        shown = length
        state = loop.continue_(model, request, state, CHUNK, call=call)


def inputs_of(
    model: Model, tokenizer: Tokenizer, texts: Sequence[str], options: Options, call: Call
) -> tuple[Tokens, Memory | None]:
    """Each text after `bos`; for an encoder-decoder the texts before `eos` are the source, as objectives write it,
    and a lone token begins the target. Raises UsageError for an encoder-decoder's prefix: its encoder reads it.
    """
    texts = [tokenizer.encode(text) for text in texts]
    if not isinstance(model, EncoderDecoder):
        rows = [np.concatenate([[tokenizer.bos], text]) for text in texts]
        return as_read(right_padded(rows, tokenizer.pad), options), None
    if options.reading == "prefix":
        raise UsageError("reading=prefix: an encoder-decoder's encoder sees prompts from both sides as it is")
    kind = model.config
    before = [tokenizer.bos] if kind.source == "bos_text" else []
    rows = [np.concatenate([np.array(before, np.int32), text, [tokenizer.eos]]) for text in texts]
    loop.check_positions(model, longest := max(map(len, rows)))
    source = right_padded(rows, tokenizer.pad, loop.bucket(longest))
    memory = _encode(model, source, dataclasses.replace(call, taps=()))
    start = tokenizer.bos if kind.start is None else kind.start
    return right_padded([np.array([start])] * len(rows), tokenizer.pad), memory


@jax.jit(static_argnames="call")
def _encode(model: EncoderDecoder, source: Tokens, call: Call) -> Memory:
    return model.encode(source, call)


def as_read(prompts: Tokens, options: Options) -> Tokens:
    """Prompts as they are to be seen: as a prefix each is whole."""
    if options.reading != "prefix":
        return prompts
    lengths = jnp.sum(prompts.segments, axis=1, keepdims=True)
    return dataclasses.replace(prompts, prefix=lengths * prompts.segments)


def right_padded(rows: Sequence[Int[np.ndarray, "_"]], pad: int, width: int | None = None) -> Tokens:
    """Right-padded rows, one document each."""
    lengths = np.array([len(row) for row in rows])
    places = np.arange(width or lengths.max(), dtype=np.int32)
    real = places < lengths[:, None]
    ids = np.full(real.shape, pad, np.int32)
    ids[real] = np.concatenate(rows)
    return Tokens(*map(jnp.asarray, (ids, real.astype(np.int32), np.where(real, places, 0))))
