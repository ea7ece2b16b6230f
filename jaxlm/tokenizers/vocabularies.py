"""GPT-2's byte-level BPE, BERT's WordPiece and words between white space, as descriptions of a `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxlm.config.data import Gpt2Files, WordPieceFile
from jaxlm.config.errors import Failure, UsageError
from jaxlm.tokenizers import files
from jaxlm.tokenizers.alphabet import BYTES
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer
from jaxlm.tokenizers.tokenizer_json import added_token, made

CLS, SEP, PAD, MASK, UNKNOWN = "[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"
PREFIX, LONGEST = "##", 100
MERGES = "merges.txt"


def gpt2(config: Gpt2Files) -> HuggingFaceTokenizer:
    """Byte-level BPE (Radford et al. 2019, section 2.2).

    Raises UsageError for a missing file or end token, Failure for files that are damaged, not of one another, or
    without all 256 bytes.
    """
    path = Path(config.path)
    vocabulary = files.tree(path)
    merges_path = Path(config.merges) if config.merges else path.with_name(MERGES)
    merges = _merges(merges_path)
    files.distinct(path, vocabulary.items())
    if config.end not in vocabulary:
        raise UsageError(
            f"{str(path)!r} has no token {config.end!r}: state the one that ends, --tokenizer.end TOKEN"
        )
    if missing := [byte for byte, character in enumerate(BYTES) if character not in vocabulary]:
        raise Failure(f"{str(path)!r} is not a byte-level vocabulary: {len(missing)} of 256 bytes have no token")
    for number, (one, two) in enumerate(merges):
        if not {one, two, one + two} <= vocabulary.keys():
            raise Failure(
                f"{str(merges_path)!r} is not of {str(path)!r}, which lacks a token of merge {number + 1}, "
                f"{one!r} with {two!r}"
            )
    described = {
        "pre_tokenizer": byte_level(),
        "decoder": byte_level(),
        "model": bpe(vocabulary, [list(pair) for pair in merges]),
    }
    return made(described, path, begin=config.end, end=config.end, padding=config.end)


def byte_level(words: bool = True) -> dict[str, Any]:
    """Bytes as characters; `words` cuts a text at GPT-2's regular expression first."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": words}


def bpe(vocabulary: dict[str, int], merges: list[list[str]], **changes: Any) -> dict[str, Any]:
    """A model of byte pair encoding."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": merges,
    } | changes


def _merges(path: Path) -> list[tuple[str, str]]:
    # Not splitlines(), which cuts at characters that a merge may hold.
    lines = [line.removesuffix("\r") for line in files.text(path, "tokenizer.merges").split("\n")]
    first = 1 if lines[0].startswith("#version") else 0
    found = []
    for number, line in enumerate(lines[first:], start=first + 1):
        parts = line.split(" ")
        if line and (len(parts) != 2 or not all(parts)):
            raise Failure(f"{str(path)!r} is damaged: line {number} is not a merge of two tokens: {line[:60]!r}")
        found += [(parts[0], parts[1])] if line else []
    return found


def wordpiece(config: WordPieceFile) -> HuggingFaceTokenizer:
    """BERT's tokenizer (Devlin et al. 2018, arXiv:1810.04805): cleaned text cut at white space, punctuation and
    Chinese characters, each word the longest pieces from its left; a word beyond 100 characters is unknown.

    Raises UsageError for a file that is missing or without BERT's tokens, Failure for a damaged one.
    """
    path = Path(config.path)
    lines = files.text(path).split("\n")
    tokens = [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]
    places: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if (first := places.setdefault(token, number)) != number:
            raise Failure(f"{str(path)!r} is damaged: {token!r} stands on line {first + 1} and {number + 1}")
    if missing := [token for token in (UNKNOWN, CLS, SEP, PAD) if token not in places]:
        raise UsageError(f"{str(path)!r} is not BERT's vocabulary: it has no {', '.join(missing)}")
    return bert(places, path, lowercase=config.lowercase)


def bert(
    places: dict[str, int], path: Path, *, lowercase: bool, special: tuple[str, ...] = ()
) -> HuggingFaceTokenizer:
    """The tokenizer of a vocabulary with BERT's tokens, which came from `path`."""
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    described = {
        "added_tokens": [added_token(places[token], token) for token in (UNKNOWN, MASK) if token in places],
        "normalizer": normalizer | {"strip_accents": None, "lowercase": lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": PREFIX, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": PREFIX,
            "max_input_chars_per_word": LONGEST,
            "vocab": places,
        },
    }
    return made(described, path, begin=CLS, end=SEP, padding=PAD, mask_token=MASK, special=special)
