"""SentencePiece models learned from text (Kudo and Richardson 2018, arXiv:1808.06226)."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from jaxlm.config.errors import Failure, UsageError
from jaxlm.tokenizers.sentencepiece import SentencePieceTokenizer

CHUNK = 4096
"""Characters of a training sentence."""
LIMIT = {"bpe": 32_000_000, "unigram": 4_000_000}
"""Characters to learn from: some 10 s for BPE, some 30 s for unigram on two cores."""


def train(
    texts: Sequence[str], kind: Literal["bpe", "unigram"], vocab: int, special: tuple[str, ...] = ()
) -> SentencePieceTokenizer:
    """A tokenizer of exactly `vocab` tokens, the `special` ones from token 4 on, learned from about `LIMIT`
    characters spread over the texts.

    Pieces may hold line breaks, runs of spaces and mixed scripts, so that the end of a line of code and the
    indentation of the next are a token each; they never cross from one word over a space to another. The
    result depends on the texts and their order only, not on the machine's cores.

    Raises UsageError, naming the nearest possible size, if the texts do not support `vocab` tokens.
    """
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts, LIMIT[kind]),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            control_symbols=",".join(special),
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_by_unicode_script=False,
            max_sentence_length=8 * CHUNK,
            num_threads=8,  # Pinned: a unigram model's bytes depend on it.
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explain(error, kind, vocab) from error
    return SentencePieceTokenizer(model.getvalue())


def _sentences(texts: Sequence[str], limit: int) -> Iterator[str]:
    """Every n-th chunk of the texts, with n such that about `limit` characters are left."""
    every = -(-sum(map(len, texts)) // limit)
    return itertools.islice((chunk for text in texts for chunk in _chunks(text)), 0, None, max(every, 1))


def _chunks(text: str) -> Iterator[str]:
    """Pieces that begin, not end, with a line break: the trainer strips breaks at the end."""
    start = 0
    while start < len(text):
        end = start + CHUNK
        cut = text.rfind("\n", start + 1, end) if end < len(text) else len(text)
        cut = cut if cut > start else end
        yield text[start:cut]
        start = cut


def _explain(error: RuntimeError, kind: str, vocab: int) -> UsageError | Failure:
    message = str(error)
    if found := re.search(r"too high .*<= (\d+)", message):
        return UsageError(
            f"tokenizer.vocab={vocab}: the training text supports at most {found[1]} {kind} tokens; "
            f"set tokenizer.vocab to {found[1]} or less (and model.vocab with it), or give more text"
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return UsageError(f"tokenizer.vocab={vocab}: the training text needs at least {found[1]} {kind} tokens")
    if "!sentences_.empty()" in message:
        return Failure("cannot train a tokenizer: the training documents hold no text")
    return Failure(f"SentencePiece could not train a {kind} model of {vocab} tokens: {message}")
