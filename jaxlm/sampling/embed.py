"""Texts as vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.config import Learned
from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.models.pooling import Pooling, pooled
from jaxlm.sampling.loop import bucket
from jaxlm.tokenizers import Tokenizer

ROWS = 32
"""Texts that are computed at once."""
Ids = Int[np.ndarray, "_"]


def embed(
    model: Any, tokenizer: Tokenizer, texts: Sequence[str], call: Call, pool: Pooling = "mean"
) -> Float[np.ndarray, "text embed"]:
    """A vector of length 1 for each text: products of two are cosines.

    The text stands between `bos` and `eos` (BERT's [CLS] and [SEP]); its vector is the mean of their last hidden
    states, or that of the first or last token, as the model was trained for: most sentence encoders for the mean
    (Reimers and Gurevych 2019, arXiv:1908.10084, section 3). Raises UsageError for a text longer than the model's
    positions, and for an encoder-decoder.
    """
    rows = [np.array([tokenizer.bos, *ids, tokenizer.eos]) for ids in tokenizer.encode_batch(texts)]
    position = getattr(model.config, "position", None)
    for text, row in zip(texts, rows, strict=True):
        if isinstance(position, Learned) and len(row) > position.length:
            raise UsageError(
                f"{text[:40]!r}... has {len(row)} tokens, and this model {position.length} positions: cut the text"
            )
    return embed_rows(model, rows, tokenizer.pad, call, pool)


def embed_rows(
    model: Any, rows: Sequence[Ids], pad: int, call: Call, pool: Pooling
) -> Float[np.ndarray, "text embed"]:
    """The same of texts that are tokens already, special ones too. Raises UsageError for an encoder-decoder."""
    if isinstance(model, EncoderDecoder):
        raise UsageError("an encoder-decoder has no vectors of texts: use an encoder or a decoder")
    found: list[np.ndarray] = [np.empty(0)] * len(rows)
    for places, tokens in batches(rows, pad, getattr(model.config, "position", None)):
        for place, vector in zip(places, np.asarray(vectors(model, tokens, call, pool))):
            found[place] = vector
    return np.stack(found)


@jax.jit(static_argnames=("call", "pool"))
def vectors(model: Any, tokens: Tokens, call: Call, pool: Pooling) -> Float[Array, "row embed"]:
    """The vector of each row's document, of length 1."""
    hidden = pooled(model(tokens, call).hidden, tokens, pool, call).astype(jnp.float32)
    vector = at_first(hidden, tokens)
    return vector / jnp.linalg.norm(vector, axis=-1, keepdims=True)


def at_first(values: Float[Array, "row pos part"], tokens: Tokens) -> Float[Array, "row part"]:
    """What stands at the first token of each row's document."""
    first = jnp.argmax(tokens.segments > 0, axis=1)
    return jnp.take_along_axis(values, first[:, None, None], axis=1)[:, 0]


def batches(rows: Sequence[Ids], pad: int, position: Any) -> Iterator[tuple[list[int], Tokens]]:
    """(Numbers of rows, these rows padded on the right), shortest first, in few different shapes: each is compiled.

    The last batch may hold rows that are none of these, at its end.
    """
    order = sorted(range(len(rows)), key=lambda number: (len(rows[number]), number))
    for start in range(0, len(order), ROWS):
        places = order[start : start + ROWS]
        width = bucket(len(rows[places[-1]]))
        width = min(width, position.length) if isinstance(position, Learned) else width
        # A few texts by themselves are few rows.
        ids, real = (np.full((min(ROWS, len(rows)), width), fill, np.int32) for fill in (pad, 0))
        for row, place in enumerate(places):
            ids[row, : len(rows[place])], real[row, : len(rows[place])] = rows[place], 1
        yield places, Tokens(*map(jnp.asarray, (ids, real, np.arange(width, dtype=np.int32) * real)))
