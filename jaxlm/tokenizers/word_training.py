"""Vocabularies of whole words and of WordPiece learned from text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.special import BASIC, MASKS
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer
from jaxlm.tokenizers.tokenizer_json import made
from jaxlm.tokenizers.vocabularies import CLS, LONGEST, MASK, PAD, PREFIX, SEP, UNKNOWN, bert

PLACE = Path("tokenizer.json")
BERTS = (PAD, UNKNOWN, CLS, SEP, MASK)
"""Tokens 0 to 4 of a WordPiece vocabulary."""


def words(texts: Iterable[str], vocab: int, special: tuple[str, ...] = ()) -> HuggingFaceTokenizer:
    """The commonest words of the texts, ties in the order of code points: at most `vocab` tokens with the basic
    and the `special` ones. The same texts in any order give the same tokens.

    Raises UsageError for a vocabulary without room for a word, Failure for texts without words.
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, trainers

    first = (*BASIC, *special)
    _room(vocab, len(first), 1, "a word needs another")
    library = Library(models.WordLevel())
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # Some more than are kept: a document may hold the special ones as words, which are unknown words there.
    trainer = trainers.WordLevelTrainer(vocab_size=vocab, min_frequency=1, special_tokens=[], show_progress=False)
    library.train_from_iterator(texts, trainer)
    found = library.get_vocab()
    common = sorted(found.keys() - set(first), key=found.__getitem__)[: vocab - len(first)]
    if not common:
        raise _empty()
    places = {token: number for number, token in enumerate([*first, *common])}
    described = {
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": places, "unk_token": BASIC[1]},
    }
    pad, _, begin, end = BASIC
    return made(described, PLACE, begin=begin, end=end, padding=pad, special=special)


def wordpiece(
    texts: Sequence[str], vocab: int, *, lowercase: bool, special: tuple[str, ...] = ()
) -> HuggingFaceTokenizer:
    """WordPiece as the library learns it: merges of the commonest neighbors, as in BPE, within words (BERT's own
    trainer was never released). At most `vocab` tokens with BERT's and the `special` ones, at most half of them
    characters, the commonest: a word with any other is unknown. The same texts give the same tokens.

    Raises UsageError for a vocabulary without room for a character, Failure for texts without any.
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import models, normalizers, pre_tokenizers, trainers

    if own := [name for name in special if name in (*BERTS, *MASKS)]:
        raise UsageError(f"tokenizer.special: {own[0]!r}: WordPiece has {', '.join(BERTS)} already")
    first = [*BERTS, *special]
    _room(vocab, len(first), 4, "a character needs four more")
    library = Library(models.WordPiece(unk_token=UNKNOWN, max_input_chars_per_word=LONGEST))
    library.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    letters, within = _characters(texts, library, (vocab - len(first)) // 4)
    if not letters:
        raise _empty()
    # The library numbers characters within words as it meets them, in another order each time, and numbers decide
    # between neighbors that are equally common: here they come first, in an order of their own.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab,
        special_tokens=[*first, *(PREFIX + one for one in within)],
        continuing_subword_prefix=PREFIX,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    found = library.get_vocab()
    places = {token: found[token] for token in sorted(found, key=found.__getitem__)}
    return bert(places, PLACE, lowercase=lowercase, special=special)


def _characters(texts: Sequence[str], library: Any, limit: int) -> tuple[list[str], list[str]]:
    """The commonest characters of words, ties in the order of code points, and those that may stand within one."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(library.normalizer.normalize_str(text))
    common = sorted((one for one in counts if not one.isspace()), key=lambda one: (-counts[one], one))[:limit]
    normalized = {one: library.normalizer.normalize_str("a" + one) for one in common}
    within = [one for one in common if len(library.pre_tokenizer.pre_tokenize_str(normalized[one])) == 1]
    return common, within


def _room(vocab: int, special: int, least: int, what: str) -> None:
    if vocab < special + least:
        raise UsageError(f"tokenizer.vocab={vocab}: {special} tokens are special ones, and {what}")


def _empty() -> Failure:
    return Failure("cannot train a tokenizer: the training documents hold no text")
