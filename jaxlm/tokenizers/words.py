"""Which tokens begin a word, and which end a sentence."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from jaxlm.config.errors import UsageError
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer
from jaxlm.tokenizers.protocol import Tokenizer
from jaxlm.tokenizers.special import of


def begins_word(tokenizer: Tokenizer) -> Bool[np.ndarray, " vocab"]:
    """For each token: of WordPiece all that do not continue one ("##..."), so that punctuation stands alone; of
    others those whose bytes begin with white space, and special ones.
    """
    special = set(of(tokenizer).ids)
    if isinstance(tokenizer, HuggingFaceTokenizer) and tokenizer.description["model"]["type"] == "WordPiece":
        prefix = tokenizer.description["model"]["continuing_subword_prefix"]
        names = (tokenizer.library.id_to_token(token) or "" for token in range(tokenizer.vocab))
        return np.array([not name.startswith(prefix) for name in names])
    return np.array(
        [token in special or tokenizer.bytes_of([token])[:1].isspace() for token in range(tokenizer.vocab)]
    )


def ends_sentence(tokenizer: Tokenizer) -> Bool[np.ndarray, " vocab"]:
    """For each token whether its text ends with a full stop, an exclamation mark or a question mark, white space
    aside; special ones do not.

    Raises UsageError for a vocabulary in which none does.
    """
    special = set(of(tokenizer).ids)
    marks = (b".", b"!", b"?")
    ends = (tokenizer.bytes_of([token]).rstrip().endswith(marks) for token in range(tokenizer.vocab))
    found = np.array([end and token not in special for token, end in enumerate(ends)])
    if not found.any():
        raise UsageError('objective.permuted: no token of the tokenizer ends in ".", "!" or "?"; use 0')
    return found
