"""The vectors of a task's texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxlm.config.errors import UsageError
from jaxlm.config.position import Learned
from jaxlm.config.vector_tasks import Vectors
from jaxlm.evaluate.results import Subject
from jaxlm.sampling.embed import embed_rows

Notes = tuple[str, ...]


def vectors_of(
    texts: Sequence[str], how: Vectors, subject: Subject
) -> tuple[Float[np.ndarray, "text embed"], Notes]:
    """A vector of length 1 for each text, and how many texts had to be cut. A text that stands twice is read once.

    Raises UsageError for an encoder-decoder, for vectors that are not finite, and where a text could not hold a
    token.
    """
    each, places = np.unique(np.array(texts, dtype=object), return_inverse=True)
    tokenizer, most = subject.tokenizer, (how.longest or subject.length) - 2
    if most < 1:
        raise UsageError(f"vectors.longest is {most + 2}: expected 3 or more, of which two are special")
    encoded = tokenizer.encode_batch([str(text) for text in each])
    rows = [np.array([tokenizer.bos, *ids[:most], tokenizer.eos]) for ids in encoded]
    position = getattr(subject.model.config, "position", None)
    if isinstance(position, Learned) and max(map(len, rows)) > position.length:
        raise UsageError(f"vectors.longest is {most + 2}, and the model has {position.length} positions: lower it")
    pool = subject.pool if how.pool == "trained" else how.pool
    found = embed_rows(subject.model, rows, tokenizer.pad, subject.call, pool)
    if not np.isfinite(found).all():
        raise UsageError("some texts have no vector: the model's hidden states are not finite, or zero")
    cut = sum(len(ids) > most for ids in encoded)
    notes = (f"{cut} of {len(each)} texts were longer than {most + 2} tokens, and cut at their end",) if cut else ()
    return found[places], notes
