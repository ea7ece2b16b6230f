"""Tokenizers as the files that transformers reads."""

from __future__ import annotations

import json
from typing import Any

from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer


def published(tokenizer: HuggingFaceTokenizer) -> dict[str, bytes]:
    """`tokenizer.json` and `tokenizer_config.json` by name.

    With them a text has its `bos` before it and nothing behind it: jaxlm trains on `bos, text..., eos`, and what a
    model is asked to continue is the beginning of one.
    """
    model = tokenizer.description | {"post_processor": _begins(tokenizer.begin, tokenizer.bos)}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokenizer.begin,
        "eos_token": tokenizer.end,
        "pad_token": tokenizer.padding,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
    }
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
