"""Small ELECTRAs, texts for them, and what their generators make of these."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxlm import config
from jaxlm.objectives.build import build
from tests.objectives import texts
from tests.objectives.texts import SPECIAL, VOCAB
from tests.tiny import CALL


def block(heads: int, head: int) -> config.Block:
    attention = config.Attention(heads, heads, head, bias="all")
    return config.Block(attention, config.Plain(3 * heads * head, "gelu", bias="all"), config.PostNorm())


ELECTRA = config.Encoder(
    vocab=VOCAB,
    embed=24,
    layers=2,
    block=block(2, 12),
    position=config.Learned(96),
    norm=config.LayerNorm(1e-12),
    head=config.NoHead(),
    embedding=config.Factorized(16),
    types=2,
    classifier=config.Classifier(1, "tokens", "gelu"),
    generator=config.Generator(embed=12, layers=2, block=block(2, 6)),
)
WIDE = dataclasses.replace(ELECTRA, embedding=config.Normed())
EQUAL = dataclasses.replace(ELECTRA, generator=dataclasses.replace(ELECTRA.generator, embed=16, block=block(2, 8)))
PLAIN = dataclasses.replace(
    EQUAL,
    embed=16,
    block=block(2, 8),
    position=config.RelativeBias(buckets=8),
    embedding=config.Unchanged(),
    types=0,
    generator=dataclasses.replace(EQUAL.generator, head=config.Untied()),
)
MODELS = {"factorized": ELECTRA, "wide": WIDE, "equal": EQUAL, "plain": PLAIN}
OBJECTIVE = build(config.ReplacedTokens(), ELECTRA, lambda: SPECIAL)
LENGTHS = (70, 94, 20, 81)


def rows():
    """One text a row, of other lengths."""
    return texts.batch([[(7 + number, text)] for number, text in enumerate(texts.documents(LENGTHS))], 96)


@functools.cache
def prepared():
    return jax.jit(OBJECTIVE.prepare)(rows(), jax.random.key(1))


@jax.jit
def totals(model, batch):
    return OBJECTIVE.totals(model, batch, None, CALL, {})[0]


@jax.jit
def drawn(model, batch):
    """What the model sees in place of the text."""
    _, found = OBJECTIVE._generated(model, batch, None, CALL)
    return jnp.where(batch.weights > 0, found, batch.targets)
