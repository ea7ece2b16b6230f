"""Tokenizers as the files that transformers reads."""

from __future__ import annotations

import json
from typing import Any

from jaxlm.config.errors import UsageError
from jaxlm.tokenizers.bytes import ByteTokenizer
from jaxlm.tokenizers.conversion import from_bytes, from_sentencepiece
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer
from jaxlm.tokenizers.protocol import Tokenizer
from jaxlm.tokenizers.sentencepiece import SentencePieceTokenizer

TIES = "cuts of a text that are equally likely may differ"
"""What a unigram model's two implementations do: they add the same numbers in 32 and in 64 bits."""

OWN = ("qwen2",)
"""Families of models for which AutoTokenizer (transformers 5) takes a class of theirs, whatever the files say."""


def exported(tokenizer: Tokenizer, model_type: str = "") -> tuple[dict[str, bytes], str]:
    """(files by name, remarks) with which transformers' AutoTokenizer gives the same tokens.

    A SentencePiece model goes along as it is; where a `tokenizer.json` cannot hold it, alone, and the remark says
    why. `model_type` is that of the model beside it.
    """
    files, remark = _exported(tokenizer)
    if model_type not in OWN or "tokenizer.json" not in files:
        return files, remark
    warning = (
        f"read it by PreTrainedTokenizerFast, as AutoTokenizer takes any tokenizer of a {model_type} for its own"
    )
    return files, "; ".join(filter(None, [remark, warning]))


def _exported(tokenizer: Tokenizer) -> tuple[dict[str, bytes], str]:
    match tokenizer:
        case ByteTokenizer():
            return published(from_bytes(tokenizer)), ""
        case HuggingFaceTokenizer():
            return published(tokenizer), ""
        case SentencePieceTokenizer(model=model):
            own = {"tokenizer.model": model}
            try:
                converted = from_sentencepiece(tokenizer)
            except UsageError as error:
                return own, str(error)
            unigram = converted.description["model"]["type"] == "Unigram"
            return own | published(converted), TIES if unigram else ""
    return {}, f"{type(tokenizer).__name__} has no file"


def published(tokenizer: HuggingFaceTokenizer) -> dict[str, bytes]:
    """`tokenizer.json` and `tokenizer_config.json` by name.

    With them a text has its `bos` before it and nothing behind it: jaxlm trains on `bos, text..., eos`, and what a
    model is asked to continue is the beginning of one. The text of a special token is that token to transformers,
    as chat templates need it, unless `split_special_tokens` is set.
    """
    model = tokenizer.description | {"post_processor": _begins(tokenizer.begin or tokenizer.end, tokenizer.bos)}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokenizer.end,
        "pad_token": tokenizer.padding,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
    }
    settings |= {"bos_token": tokenizer.begin} if tokenizer.begin else {}
    settings |= {"mask_token": tokenizer.mask_token} if tokenizer.mask_token else {}
    settings |= {"chat_template": tokenizer.template} if tokenizer.template else {}
    return {
        "tokenizer.json": _bytes(model, None),
        "tokenizer_config.json": _bytes(settings, 1),
    }


def _begins(token: str, number: int) -> dict[str, Any]:
    """`token` before a text, and before the second of two."""
    first, second = ({"SpecialToken": {"id": token, "type_id": kind}} for kind in (0, 1))
    one, two = ({"Sequence": {"id": name, "type_id": kind}} for kind, name in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [first, one],
        "pair": [first, one, second, two],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }


def _bytes(tree: dict[str, Any], indent: int | None) -> bytes:
    return (json.dumps(tree, ensure_ascii=False, indent=indent) + "\n").encode()
