"""Encoder-decoders beside those of transformers: sources with padding, targets, and logits of ours."""

import jax
import numpy as np

from tests.tiny import CALL, tokens

UNTIED = ("T5", "MT5")
"""Whose heads may be matrices of their own, which transformers makes of no settings."""
SOURCE, SHORTER, TARGET = 150, 131, 140
"""Tokens of the first source, of the second, and of targets: all beyond where the last bucket begins."""


def ids(vocab: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, 1 where they are no padding, and targets."""
    rng = np.random.default_rng(0)
    seen = np.arange(SOURCE)[None] < np.array([[SOURCE], [SHORTER]])
    source = rng.integers(3, vocab, (2, SOURCE)) * seen
    return source, seen.astype(int), rng.integers(3, vocab, (2, TARGET))


@jax.jit
def _logits(model, source, targets):
    memory = model.encode(source, CALL)
    return model.logits(model(targets, CALL, memory=memory).hidden, CALL)


def logits(model, vocab: int, *, blind: bool = False) -> np.ndarray:
    """Of the targets; a model that is `blind` takes padding for tokens."""
    source, seen, target = ids(vocab)
    segments = np.ones_like(seen) if blind else seen
    positions = np.broadcast_to(np.arange(SOURCE), source.shape)
    return np.asarray(_logits(model, tokens(source, segments, positions), tokens(target)))
