"""Tokenizers out of a GGUF file's fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlm.config.errors import Failure, UsageError
from jaxlm.tokenizers import files
from jaxlm.tokenizers.conversion import BPE, UNIGRAM, from_sentencepiece
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer
from jaxlm.tokenizers.protocol import Tokenizer
from jaxlm.tokenizers.sentencepiece import SentencePieceTokenizer
from jaxlm.tokenizers.tokenizer_json import added_token, made
from jaxlm.tokenizers.vocabularies import bpe, byte_level


@dataclass(frozen=True)
class Cuts:
    """What is done to a text before its bytes are merged."""

    parts: tuple[dict[str, Any], ...]
    """How it is cut."""
    normalizer: dict[str, Any] | None = None
    whole: bool = False
    """A part that is a token is one, whatever the merges make of it."""


def words(digits: str) -> tuple[dict[str, Any], ...]:
    """Cuts of Llama 3's kind, with so many digits in a part."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + "|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return split, byte_level(words=False)


CUTS = {
    "gpt-2": Cuts((byte_level(),)),
    "smollm": Cuts(({"type": "Digits", "individual_digits": True}, byte_level())),
    "llama-bpe": Cuts(words(r"\p{N}{1,3}"), whole=True),
    "qwen2": Cuts(words(r"\p{N}"), normalizer={"type": "NFC"}),
}
"""`tokenizer.ggml.pre` -> what the model's own `tokenizer.json` does."""
UNKNOWN, CONTROL, USER, BYTE = 2, 3, 4, 6
"""Types of tokens, in SentencePiece's numbers: for what is not known, special ones, whole texts that are never cut,
single bytes."""
PIECES = {"llama": BPE, "t5": UNIGRAM}
"""`tokenizer.ggml.model` -> the kind of SentencePiece model."""


def tokenizer(fields: Mapping[str, Any], path: Path) -> Tokenizer:
    """The byte-level BPE or SentencePiece model that a file describes.

    The chat template goes with all but unigram models and those that a `tokenizer.json` cannot hold: see
    `conversion.from_sentencepiece`. Raises Failure for fields that are missing or damaged, and for a kind that is
    not known here.
    """
    kind = _field(fields, path, "model")
    if kind in PIECES:
        found = SentencePieceTokenizer(_pieces(fields, path, PIECES[kind]))
        try:
            has_end = found.eos >= 0
        except RuntimeError as error:
            raise Failure(f"{path} is damaged: SentencePiece refuses its tokenizer: {error}") from None
        if not has_end:
            raise Failure(f"{path} is damaged: the token that ends a text is no special one")
        try:
            converted = from_sentencepiece(found) if PIECES[kind] == BPE else None
        except UsageError:
            converted = None
        template = fields.get("tokenizer.chat_template", "")
        return found if converted is None else dataclasses.replace(converted, template=template)
    if kind != "gpt2":
        known = "gpt2, byte-level BPE; llama and t5, SentencePiece"
        raise Failure(f"{path}: no tokenizer {kind!r} is known here; there are {known}")
    return _byte_level(fields, path)


def _field(fields: Mapping[str, Any], path: Path, name: str) -> Any:
    if f"tokenizer.ggml.{name}" not in fields:
        raise Failure(f"{path} is damaged: it has no tokenizer.ggml.{name}")
    return fields[f"tokenizer.ggml.{name}"]


def _pieces(fields: Mapping[str, Any], path: Path, kind: int) -> bytes:
    """A SentencePiece model, serialized; what a file does not say is as llama.cpp takes it."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    columns = [_field(fields, path, name) for name in ("tokens", "scores", "token_type")]
    if len(set(map(len, columns))) > 1 or UNKNOWN not in columns[2]:
        lengths = " and ".join(str(len(column)) for column in columns)
        raise Failure(f"{path} is damaged: {lengths} tokens, scores and types, or no token for what is not known")
    model = ModelProto()
    for token, score, role in zip(*columns, strict=True):
        model.pieces.add(piece=token, score=score, type=role)
    training, normalizer = model.trainer_spec, model.normalizer_spec
    training.model_type, training.vocab_size = kind, len(model.pieces)
    training.byte_fallback = BYTE in columns[2]
    training.unk_id = columns[2].index(UNKNOWN)
    training.unk_piece = columns[0][training.unk_id]
    numbers = _special(fields, path, len(model.pieces))
    for name, role in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        number = numbers[role]
        setattr(training, f"{name}_id", -1 if number is None else number)
        if number is not None:
            setattr(training, f"{name}_piece", columns[0][number])
    table = fields.get("tokenizer.ggml.precompiled_charsmap", ())
    normalizer.name = "user_defined" if table else "identity"
    normalizer.precompiled_charsmap = bytes(byte % 256 for byte in table)
    normalizer.add_dummy_prefix = fields.get("tokenizer.ggml.add_space_prefix", True)
    normalizer.remove_extra_whitespaces = fields.get("tokenizer.ggml.remove_extra_whitespaces", False)
    return model.SerializeToString()


def _special(fields: Mapping[str, Any], path: Path, count: int) -> dict[str, int | None]:
    """Numbers of the tokens that begin, end and fill up a text."""
    roles = {role: fields.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos", "padding")}
    roles["eos"] = _field(fields, path, "eos_token_id")
    if any(number is not None and not 0 <= number < count for number in roles.values()):
        raise Failure(f"{path} is damaged: of {count} tokens it names {roles}")
    return roles


def _byte_level(fields: Mapping[str, Any], path: Path) -> HuggingFaceTokenizer:
    def field(name: str) -> Any:
        return _field(fields, path, name)

    if (cut := field("pre")) not in CUTS:
        raise Failure(f"{path}: no tokenizer.ggml.pre {cut!r} is known here; there are {', '.join(CUTS)}")
    tokens, kinds = field("tokens"), field("token_type")
    merges = [one.split(" ") for one in field("merges")]
    if len(kinds) != len(tokens) or any(len(one) != 2 for one in merges):
        raise Failure(f"{path} is damaged: {len(tokens)} tokens have {len(kinds)} types, or a merge is not of two")
    ids = files.distinct(path, [(token, number) for number, token in enumerate(tokens)])
    if len(ids) < len(tokens):
        raise Failure(f"{path} is damaged: {len(tokens) - len(ids)} tokens stand in it twice")
    added = [
        added_token(number, tokens[number], special=kind == CONTROL)
        for number, kind in enumerate(kinds)
        if kind in (CONTROL, USER)
    ]
    described = {
        "added_tokens": added,
        "normalizer": CUTS[cut].normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(CUTS[cut].parts)},
        "decoder": byte_level(),
        "model": bpe(ids, merges, ignore_merges=CUTS[cut].whole),
    }
    roles = _special(fields, path, len(tokens))
    begin, end, padding = ("" if number is None else tokens[number] for number in roles.values())
    template = fields.get("tokenizer.chat_template", "")
    return made(described, path, begin=begin, end=end, padding=padding or end, template=template)
