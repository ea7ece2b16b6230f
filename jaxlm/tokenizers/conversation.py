"""Conversations as tokens: special ones where the chat template writes them, never out of a message."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32

from jaxlm.config.errors import UsageError
from jaxlm.tokenizers.chat import render
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer

OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Around a special token's text in a message while the template is at work: no characters, by Unicode."""


@dataclass(frozen=True, eq=False)
class Conversation:
    """What a chat template made of messages."""

    text: str
    ids: Int32[np.ndarray, " tokens"]
    offsets: Int32[np.ndarray, "tokens 2"]
    """[start, end) of each token in the text, in characters."""


def encode(
    tokenizer: HuggingFaceTokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    generation: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> Conversation:
    """The tokens of a conversation by the tokenizer's own chat template; see `chat.render`.

    A message that holds "<|im_end|>" gives the tokens of its characters. The template sees `bos_token`,
    `eos_token`, `pad_token` and `mask_token`, those of them that the tokenizer has.

    Raises UsageError for a tokenizer without a template, Failure as `chat.render` does.
    """
    rendered = _marked_text(tokenizer, messages, generation, variables)
    # [text, marked, text, marked, ..., text]; a mark alone, which the template cut off, only ends a text.
    pieces = re.split(f"{OPEN}({_special(tokenizer)}){CLOSE}|[{OPEN}{CLOSE}]", rendered)
    ids, offsets, start = [np.empty(0, np.int32)], [np.empty((0, 2), np.int32)], 0
    for number, piece in enumerate(pieces):
        if piece:
            part = tokenizer.encode_with_offsets(piece) if number % 2 else tokenizer.encode_with_special(piece)
            ids.append(part[0])
            offsets.append(part[1] + np.int32(start))
            start += len(piece)
    text = "".join(piece for piece in pieces if piece)
    return Conversation(text, np.concatenate(ids), np.concatenate(offsets))


def written(
    tokenizer: HuggingFaceTokenizer, messages: Sequence[Mapping[str, Any]], *, generation: bool = False
) -> str:
    """`encode`'s text alone."""
    return unmarked(_marked_text(tokenizer, messages, generation, None))


def begun(tokenizer: HuggingFaceTokenizer, conversation: Conversation) -> Conversation:
    """The conversation after exactly one BOS, the template's own or else ours, where the tokenizer has one."""
    if not tokenizer.begin or conversation.ids[:1].tolist() == [tokenizer.bos]:
        return conversation
    ids = np.concatenate([np.array([tokenizer.bos], np.int32), conversation.ids])
    offsets = np.concatenate([np.zeros((1, 2), np.int32), conversation.offsets])
    return Conversation(conversation.text, ids, offsets)


def unmarked(text: str) -> str:
    """A text without the marks."""
    return text.replace(OPEN, "").replace(CLOSE, "")


def _marked_text(
    tokenizer: HuggingFaceTokenizer,
    messages: Sequence[Mapping[str, Any]],
    generation: bool,
    variables: Mapping[str, Any] | None,
) -> str:
    if not tokenizer.template:
        raise UsageError(
            "the tokenizer has no chat template: neither chat_template.jinja nor tokenizer_config.json"
        )
    special = re.compile(_special(tokenizer))
    marked = _marked({"messages": messages, "variables": dict(variables or {})}, special)
    given = marked["variables"] | _own(tokenizer)
    return render(tokenizer.template, marked["messages"], generation=generation, variables=given)


def _special(tokenizer: HuggingFaceTokenizer) -> str:
    """A pattern of the special tokens' texts, the longest first."""
    return "|".join(map(re.escape, sorted(tokenizer.special, key=len, reverse=True)))


def _own(tokenizer: HuggingFaceTokenizer) -> dict[str, str]:
    named = {
        "bos_token": tokenizer.begin,
        "eos_token": tokenizer.end,
        "pad_token": tokenizer.padding,
        "mask_token": tokenizer.mask_token,
    }
    return {name: token for name, token in named.items() if token}


def _marked(value: Any, special: re.Pattern[str]) -> Any:
    """A copy in which every special token's text stands between marks, and no other marks are."""
    if isinstance(value, str):
        return special.sub(lambda found: OPEN + found[0] + CLOSE, unmarked(value))
    if isinstance(value, Mapping):
        return {key: _marked(each, special) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(each, special) for each in value]
    return value
