"""Documents in rows, what objectives make of them, and a vocabulary with every special token."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import config
from jaxlm.config.special import Special
from jaxlm.layers.contracts import Batch, Tokens
from jaxlm.objectives.build import build

PAD, BOS, EOS, MASK, FIRST_SENTINEL, SENTINELS = 0, 2, 3, 4, 5, 8
NAMED = {"[R]": 20, "[X]": 21, "[S]": 22, "<fim_prefix>": 23, "<fim_middle>": 24, "<fim_suffix>": 25}
FIRST, VOCAB = 30, 64
"""The first token of text, and all tokens."""
SPECIAL = Special(
    VOCAB,
    PAD,
    BOS,
    EOS,
    (
        ("<mask>", MASK),
        *((f"<extra_id_{number}>", FIRST_SENTINEL + number) for number in range(SENTINELS)),
        *NAMED.items(),
    ),
)
ENDS = range(FIRST, FIRST + 8)
"""Tokens that end a sentence."""
ENCODER = config.Encoder(vocab=VOCAB, layers=1)
TWO_SIDED = config.EncoderDecoder(vocab=VOCAB)
ELECTRA = config.Encoder(
    vocab=VOCAB,
    layers=1,
    head=config.NoHead(),
    embedding=config.Normed(),
    classifier=config.Classifier(1, "tokens", "gelu"),
    generator=config.Generator(layers=1),
)
DECODER = config.Decoder(vocab=VOCAB, layers=1)
KINDS = {
    "masked_lm": (config.MaskedLm(0.3, chunks=2), ENCODER),
    "whole_words": (config.MaskedLm(0.3, unit="word", chunks=2), ENCODER),
    "replaced_tokens": (config.ReplacedTokens(config.MaskedLm(0.3, 1.0, 0.0, chunks=2)), ELECTRA),
    "span_corruption": (config.SpanCorruption(0.3, 2.0, SENTINELS, chunks=2), TWO_SIDED),
    "prefix_lm": (config.PrefixLm(chunks=2), TWO_SIDED),
    "prefix_decoder": (config.PrefixLm(chunks=2), DECODER),
    "ul2": (config.Ul2(sentinels=SENTINELS, chunks=2), TWO_SIDED),
    "infilling": (config.Infilling(chunks=2), TWO_SIDED),
    "permuted": (config.Infilling(permuted=0.7, chunks=2), TWO_SIDED),
    "fill_in_the_middle": (config.FillInTheMiddle(0.7, chunks=2), DECODER),
}
"""Name -> (objective, a model that takes it)."""


def objective(name: str):
    kind, model = KINDS[name]
    return build(kind, model, lambda: SPECIAL)


def documents(lengths, seed: int = 0) -> list[np.ndarray]:
    """Texts of so many random tokens."""
    draw = np.random.default_rng(seed)
    return [draw.integers(FIRST, VOCAB, length) for length in lengths]


def batch(rows: list[list[tuple[int, np.ndarray]]], length: int) -> Batch:
    """Rows of (document's number, text), each text between its two tokens; words are pairs of tokens."""
    shape = (len(rows), length)
    ids, segments, positions, numbers = (np.zeros(shape, np.int32) for _ in range(4))
    for row, texts in enumerate(rows):
        at = 0
        for segment, (number, text) in enumerate(texts, start=1):
            whole = np.concatenate([[BOS], text, [EOS]])
            where = slice(at, at + len(whole))
            ids[row, where], segments[row, where], numbers[row, where] = whole, segment, number
            positions[row, where] = np.arange(len(whole))
            at += len(whole)
    tokens = Tokens(*(jnp.asarray(one) for one in (ids, segments, positions)))
    follows = np.pad(segments[:, 1:] == segments[:, :-1], ((0, 0), (0, 1))) & (segments > 0)
    return Batch(
        inputs=tokens,
        targets=jnp.asarray(np.where(follows, np.pad(ids[:, 1:], ((0, 0), (0, 1))), 0)),
        weights=jnp.asarray(follows, jnp.float32),
        rows=jnp.arange(len(rows)),
        documents=jnp.asarray(numbers),
        extra={"words": jnp.asarray(positions // 2 * 2), "ends": jnp.asarray(np.isin(ids, ENDS), jnp.int32)},
    )


def by_document(before: Batch, after: Batch) -> dict[int, tuple]:
    """What each document became: (source, inputs, targets, weights), and a prefix's end at each of its tokens, as
    tuples of the tokens that are there.
    """
    found = {}
    numbers = np.asarray(before.documents)
    segments = np.asarray(before.inputs.segments)
    for row in range(numbers.shape[0]):
        for segment in range(1, segments[row].max() + 1):
            number = int(numbers[row][segments[row] == segment][0])
            here = np.asarray(after.inputs.segments)[row] == segment
            sides = [np.asarray(x)[row][here].tolist() for x in (after.inputs.ids, after.targets, after.weights)]
            assert np.asarray(after.inputs.positions)[row][here].tolist() == list(range(here.sum()))
            assert set(np.asarray(after.documents)[row][here].tolist()) <= {number}
            source = []
            if after.source is not None:
                there = np.asarray(after.source.segments)[row] == segment
                source = np.asarray(after.source.ids)[row][there].tolist()
                assert np.asarray(after.source.positions)[row][there].tolist() == list(range(there.sum()))
            more = [] if after.inputs.prefix is None else [np.asarray(after.inputs.prefix)[row][here].tolist()]
            found[number] = (source, *sides, *more)
    return found


def prepared(name: str, rows: Batch, seed: int = 0) -> Batch:
    return jax.jit(objective(name).prepare)(rows, jax.random.key(seed))
