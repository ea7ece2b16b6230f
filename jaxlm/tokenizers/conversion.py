"""Bytes and SentencePiece models as a Hugging Face `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.config.errors import UsageError
from jaxlm.config.special import BASIC
from jaxlm.tokenizers.alphabet import BYTES
from jaxlm.tokenizers.bytes import PLAIN, ByteTokenizer
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer
from jaxlm.tokenizers.sentencepiece import SPACE, SentencePieceTokenizer
from jaxlm.tokenizers.tokenizer_json import made
from jaxlm.tokenizers.vocabularies import bpe, byte_level

if TYPE_CHECKING:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

PLACE = Path("tokenizer.json")
UNIGRAM, BPE = 1, 2
"""`model_type` of a SentencePiece model."""
NORMAL, USER_DEFINED, UNUSED = 1, 4, 5
"""`type` of a piece."""
NEVER = -1e5
"""The score of pieces that no text may give: bytes, control tokens and the unknown one."""


def from_bytes(tokenizer: ByteTokenizer) -> HuggingFaceTokenizer:
    """Byte-level BPE without a merge."""
    vocabulary = dict(zip(BASIC, range(4))) | {character: 4 + byte for byte, character in enumerate(BYTES)}
    vocabulary |= {name: PLAIN + number for number, name in enumerate(tokenizer.special)}
    described = {
        "pre_tokenizer": byte_level(words=False),
        "decoder": byte_level(words=False),
        "model": bpe(vocabulary, []),
    }
    begin, end, padding = (BASIC[token] for token in (tokenizer.bos, tokenizer.eos, tokenizer.pad))
    return made(described, PLACE, begin=begin, end=end, padding=padding, special=tokenizer.special)


def from_sentencepiece(tokenizer: SentencePieceTokenizer) -> HuggingFaceTokenizer:
    """The same tokens of every text without U+2581, which is a space there.

    Raises UsageError, saying what it is, for a model with something that a `tokenizer.json` cannot say or says
    otherwise: characters rewritten by tables, white space taken away, pieces of the user's own, other algorithms.
    """
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    model = ModelProto()
    model.ParseFromString(tokenizer.model)
    if reason := _inexpressible(model):
        raise UsageError(f"a tokenizer.json cannot hold this SentencePiece model: {reason}")
    name = tokenizer.processor.id_to_piece
    prefix = model.normalizer_spec.add_dummy_prefix
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    rewritten = [{"type": "Prepend", "prepend": SPACE}, spaces] if prefix else [spaces]
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    decoders = [back, {"type": "ByteFallback"}, {"type": "Fuse"}]
    decoders += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    described = {
        "normalizer": {"type": "Sequence", "normalizers": rewritten},
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _unigram(model) if model.trainer_spec.model_type == UNIGRAM else _bpe(model),
    }
    begin, end, padding = (name(token) for token in (tokenizer.bos, tokenizer.eos, tokenizer.pad))
    return made(described, PLACE, begin=begin, end=end, padding=padding, special=tuple(tokenizer.control))


def _inexpressible(model: ModelProto) -> str:
    """Why not, or nothing."""
    training, normalizer = model.trainer_spec, model.normalizer_spec
    kinds = {piece.type for piece in model.pieces}
    reasons = {
        "it is neither BPE nor unigram": training.model_type not in (UNIGRAM, BPE),
        f"it rewrites characters ({normalizer.name})": bool(normalizer.precompiled_charsmap),
        "it takes extra white space away": normalizer.remove_extra_whitespaces,
        "it has user-defined pieces": USER_DEFINED in kinds,
        "it has unused pieces": UNUSED in kinds,
        "it writes spaces behind words": training.treat_whitespace_as_suffix or not normalizer.escape_whitespaces,
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)


def _unigram(model: ModelProto) -> dict[str, Any]:
    # In SentencePiece only normal pieces are looked for in a text; here a low score keeps the others out of it.
    pieces = [[piece.piece, piece.score if piece.type == NORMAL else NEVER] for piece in model.pieces]
    fallback = model.trainer_spec.byte_fallback
    return {"type": "Unigram", "unk_id": model.trainer_spec.unk_id, "vocab": pieces, "byte_fallback": fallback}


def _bpe(model: ModelProto) -> dict[str, Any]:
    """SentencePiece joins the neighbors whose piece has the best score: every way to split it is a merge."""
    normal = {piece.piece: piece.score for piece in model.pieces if piece.type == NORMAL}
    merges = [
        [piece[:at], piece[at:]]
        for piece in sorted(normal, key=normal.__getitem__, reverse=True)
        for at in range(1, len(piece))
        if piece[:at] in normal and piece[at:] in normal
    ]
    vocabulary = {piece.piece: number for number, piece in enumerate(model.pieces)}
    unknown = model.pieces[model.trainer_spec.unk_id].piece
    fallback = model.trainer_spec.byte_fallback
    return bpe(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=fallback)
