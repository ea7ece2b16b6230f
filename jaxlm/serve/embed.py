"""Texts as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.config import Learned
from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.models.pooling import Pooling, pooled
from jaxlm.sampling.loop import bucket
from jaxlm.tokenizers import Tokenizer

ROWS = 32
"""Texts that are computed at once."""


def embed(
    model: Any, tokenizer: Tokenizer, texts: Sequence[str], call: Call, pool: Pooling = "mean"
) -> Float[np.ndarray, "text embed"]:
    """A vector of length 1 for each text: products of two are cosines.

    The text stands between `bos` and `eos` (BERT's [CLS] and [SEP]); its vector is the mean of their last hidden
    states, or that of the first or last token, as the model was trained for: most sentence encoders for the mean
    (Reimers and Gurevych 2019, arXiv:1908.10084, section 3). Raises UsageError for a text longer than the model's
    positions, and for an encoder-decoder.
    """
    if isinstance(model, EncoderDecoder):
        raise UsageError("an encoder-decoder has no vectors of texts: use an encoder or a decoder")
    rows = [np.array([tokenizer.bos, *ids, tokenizer.eos]) for ids in tokenizer.encode_batch(texts)]
    position = getattr(model.config, "position", None)
    for text, row in zip(texts, rows, strict=True):
        if isinstance(position, Learned) and len(row) > position.length:
            raise UsageError(
                f"{text[:40]!r}... has {len(row)} tokens, and this model {position.length} positions: cut the text"
            )
    found = []
    for start in range(0, len(rows), ROWS):
        tokens = _padded(rows[start : start + ROWS], tokenizer.pad, position)
        found.append(np.asarray(vectors(model, tokens, call, pool)))
    return np.concatenate(found)[: len(rows)]


@jax.jit(static_argnames=("call", "pool"))
def vectors(model: Any, tokens: Tokens, call: Call, pool: Pooling) -> Float[Array, "row embed"]:
    """The vector of each row's document, of length 1."""
    hidden = pooled(model(tokens, call).hidden, tokens, pool, call).astype(jnp.float32)
    first = jnp.argmax(tokens.segments > 0, axis=1)
    vector = jnp.take_along_axis(hidden, first[:, None, None], axis=1)[:, 0]
    return vector / jnp.linalg.norm(vector, axis=-1, keepdims=True)


def _padded(rows: Sequence[np.ndarray], pad: int, position: Any) -> Tokens:
    """Rows padded on the right, in few different shapes: each is compiled."""
    width = bucket(max(map(len, rows)))
    width = min(width, position.length) if isinstance(position, Learned) else width
    ids, real = (np.full((len(rows), width), fill, np.int32) for fill in (pad, 0))
    for number, row in enumerate(rows):
        ids[number, : len(row)], real[number, : len(row)] = row, 1
    return Tokens(*map(jnp.asarray, (ids, real, np.arange(width, dtype=np.int32) * real)))
