"""Which tokens of a conversation the model is to say: answers, each with the token that ends it.

Answers are found by their characters, never by counting the tokens of a prompt: a token may hold the end of a
prompt and the beginning of its answer, and then belongs to both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from jaxlm.config.data import ASSISTANT
from jaxlm.config.errors import Failure
from jaxlm.tokenizers.conversation import Conversation, begun, encode, unmarked, written
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer
from jaxlm.tokenizers.protocol import Tokenizer

Messages = Sequence[Mapping[str, str]]


class Answered(NamedTuple):
    """A conversation as training takes it."""

    ids: Int32[np.ndarray, " tokens"]
    predicted: Bool[np.ndarray, " tokens"]
    """The answers' tokens and those that end them."""
    bytes: int
    """UTF-8 bytes of the answers."""


class Span(NamedTuple):
    """Characters of the conversation's text."""

    start: int
    said: int
    """Where the answer's own text ends."""
    end: int
    """Where all that the template writes of the turn ends."""


def by_template(tokenizer: HuggingFaceTokenizer, messages: Messages) -> Answered:
    """A conversation by the tokenizer's chat template, after exactly one BOS (if it has one).

    What the template writes before an answer (its header) is given to the model, not predicted; the first special
    token after an answer ends the turn and is predicted with it; what follows it (a line feed, say) is not. A
    template that writes none leaves the end to `eos`, put after the last answer.

    Raises UsageError for a tokenizer without a template; Failure where the template refuses the messages, does not
    write an answer as it is, or writes it otherwise when messages follow.
    """
    whole = begun(tokenizer, encode(tokenizer, messages))
    ids, predicted = whole.ids, np.zeros(len(whole.ids), bool)
    special = np.isin(ids, [tokenizer.library.token_to_id(one) for one in tokenizer.special])
    ended = False
    for i, message in enumerate(messages):
        if message["role"] == ASSISTANT:
            span = _span(tokenizer, messages, i, whole.text)
            part, ended = _tokens(whole, special, span)
            predicted |= part
    if not ended:
        ids, predicted = np.append(ids, np.int32(tokenizer.eos)), np.append(predicted, True)
    return Answered(ids, predicted, _bytes(messages))


def _span(tokenizer: HuggingFaceTokenizer, messages: Messages, i: int, whole: str) -> Span:
    """Where message i lies in the text of the whole conversation."""
    before = written(tokenizer, messages[:i], generation=True) if i else ""
    after = written(tokenizer, messages[: i + 1])
    said = unmarked(messages[i]["content"]).strip()
    start = after.find(said, _shared(before, after))
    if start < 0:
        raise Failure(f"the chat template does not write message {i + 1} as it is: {said[:60]!r}")
    if not whole.startswith(after[: start + len(said)]):
        raise Failure(
            f"the chat template writes message {i + 1} otherwise when others follow it: train on conversations "
            "that end in their only answer, or on another template"
        )
    return Span(start, start + len(said), _shared(after, whole))


def _shared(one: str, other: str) -> int:
    """Characters that both begin with."""
    pairs = enumerate(zip(one, other))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _tokens(
    whole: Conversation, special: Bool[np.ndarray, " tokens"], span: Span
) -> tuple[Bool[np.ndarray, " tokens"], bool]:
    """The tokens of a span up to the one that ends the turn, and whether there is one."""
    first, last = whole.offsets.T
    ends = np.flatnonzero(special & (first >= span.said) & (last <= span.end) & (last > first))
    end = int(last[ends[0]]) if len(ends) else span.said
    return (last > span.start) & (first < end) & (last > first), bool(len(ends))


def end_of_turn(tokenizer: HuggingFaceTokenizer) -> int:
    """The token by which the model says that its answer ends. Raises as `by_template` does."""
    probe = [{"role": "user", "content": "a"}, {"role": ASSISTANT, "content": "b"}]
    found = by_template(tokenizer, probe)
    return int(found.ids[found.predicted][-1])


def joined(tokenizer: Tokenizer, messages: Messages, between: str) -> Answered:
    """BOS, prompts and answers: `between` before each answer and each further prompt, `eos` after each answer."""
    ids, predicted, text = [np.array([tokenizer.bos])], [np.array([False])], ""
    for message in messages:
        if message["role"] != ASSISTANT:
            text += (between if len(ids) > 1 or text else "") + message["content"]
            continue
        text += between if text else ""
        found, offsets = tokenizer.encode_with_offsets(text + message["content"])
        ids += [found, np.array([tokenizer.eos])]
        predicted += [offsets[:, 1] > len(text), np.array([True])]
        text = ""
    return Answered(np.concatenate(ids).astype(np.int32), np.concatenate(predicted), _bytes(messages))


def _bytes(messages: Messages) -> int:
    return sum(len(one["content"].encode()) for one in messages if one["role"] == ASSISTANT)
