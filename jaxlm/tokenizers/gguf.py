"""Tokenizers out of a GGUF file's fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlm.config.errors import Failure
from jaxlm.tokenizers import files
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer
from jaxlm.tokenizers.tokenizer_json import added_token, made
from jaxlm.tokenizers.vocabularies import bpe, byte_level

CUTS = {
    "gpt-2": [byte_level()],
    "smollm": [{"type": "Digits", "individual_digits": True}, byte_level()],
}
"""`tokenizer.ggml.pre` -> how a text is cut before its bytes are merged."""
CONTROL, USER = 3, 4
"""Types of tokens: special ones, and whole texts that are never cut."""


def tokenizer(fields: Mapping[str, Any], path: Path) -> HuggingFaceTokenizer:
    """The byte-level BPE that a file describes, with its chat template.

    Raises Failure for fields that are missing or damaged, and for a kind that is not known here.
    """

    def field(name: str) -> Any:
        if f"tokenizer.ggml.{name}" not in fields:
            raise Failure(f"{path} is damaged: it has no tokenizer.ggml.{name}")
        return fields[f"tokenizer.ggml.{name}"]

    if (kind := field("model")) != "gpt2":
        raise Failure(f"{path}: no tokenizer {kind!r} is known here; there is gpt2, byte-level BPE")
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
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": CUTS[cut]},
        "decoder": byte_level(),
        "model": bpe(ids, merges),
    }
    roles = {role: fields.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos", "padding")}
    roles["eos"] = field("eos_token_id")
    if any(number is not None and not 0 <= number < len(tokens) for number in roles.values()):
        raise Failure(f"{path} is damaged: of {len(tokens)} tokens it names {roles}")
    begin, end, padding = ("" if number is None else tokens[number] for number in roles.values())
    template = fields.get("tokenizer.chat_template", "")
    return made(described, path, begin=begin, end=end, padding=padding or end, template=template)
