"""What a teacher behind an API is asked, the name by which each of its answers is kept, and what it replied.

Pure functions of plain data: `distill.api` sends, waits and keeps.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from typing import Any

from jaxlm.config.errors import UsageError

Message = Mapping[str, str]
PER_MESSAGE, PER_REQUEST = 16, 64
"""Tokens that a chat template may add: to a message, and to a conversation."""
SILENT = ("length", "content_filter", "tool_calls", "function_call")
"""Reasons to end for which an answer may have no text: it was cut while the model thought, or calls a function."""


@dataclass(frozen=True)
class Prompt:
    """A conversation that is to be answered."""

    name: str
    """Where it comes from."""
    messages: tuple[Message, ...]
    answer: str = ""
    """What is right, for those who verify."""


@dataclass(frozen=True)
class Asking:
    """How prompts are asked: all that decides an answer, but the prompt and which of several answers it is."""

    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the request's body, as they are sent: temperature, max_tokens, ..."""
    seed: int | None = 0
    """Of answer 0 of each prompt; answer i is asked for with seed + i. None: no seed is sent."""

    @property
    def digest(self) -> str:
        """The first 16 digits of a sha256 of it all."""
        return _digest({"model": self.model, "parameters": self.parameters, "seed": self.seed})[:16]

    @property
    def limit(self) -> int:
        """Most tokens of an answer. Raises UsageError where the parameters do not say: it bounds what is paid."""
        for name in ("max_completion_tokens", "max_tokens"):
            if found := self.parameters.get(name):
                return found
        raise UsageError("a teacher is asked with max_tokens or max_completion_tokens among the parameters")


@dataclass(frozen=True)
class Unit:
    """What one request asks for: answers `first`, `first + 1`, ... of a prompt."""

    prompt: Prompt
    first: int
    keys: tuple[str, ...]
    """Of each of the answers."""


def key(asking: Asking, messages: Sequence[Message], index: int) -> str:
    """sha256 of all that decides an answer; the teacher's address does not: a model is the same elsewhere."""
    whole = {
        "model": asking.model,
        "parameters": asking.parameters,
        "messages": messages,
        "seed": asking.seed,
        "sample": index,
    }
    return _digest(whole)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=dict)
    return sha256(text.encode()).hexdigest()


def units(
    asking: Asking, prompts: Sequence[Prompt], samples: int, most: int, known: Collection[str]
) -> Iterator[Unit]:
    """Requests for the answers that are not known, in order, of at most `most` answers each; none is asked twice.

    The answers of one request follow each other: servers draw choice c of a request with seed s as with seed s + c.
    """
    met = set(known)
    for prompt in prompts:
        keys = [key(asking, prompt.messages, index) for index in range(samples)]
        first = 0
        while first < samples:
            end = first
            while end < min(first + most, samples) and keys[end] not in met:
                end += 1
            if end > first:
                met.update(keys[first:end])
                yield Unit(prompt, first, tuple(keys[first:end]))
            first = max(end, first + 1)


def body(asking: Asking, unit: Unit) -> dict[str, Any]:
    """The request's JSON for /v1/chat/completions."""
    seed = {} if asking.seed is None else {"seed": asking.seed + unit.first}
    count = {"n": len(unit.keys)} if len(unit.keys) > 1 else {}
    messages = [dict(one) for one in unit.prompt.messages]
    return {"model": asking.model, "messages": messages, **asking.parameters, **seed, **count}


def most_tokens(asking: Asking, unit: Unit) -> tuple[int, int]:
    """(Prompt tokens, completion tokens) that a request can cost at most.

    A prompt has no more tokens than bytes (each token stands for at least one), but for what a chat template adds.
    """
    size = sum(len(one["role"].encode()) + len(one["content"].encode()) for one in unit.prompt.messages)
    return size + PER_MESSAGE * len(unit.prompt.messages) + PER_REQUEST, asking.limit * len(unit.keys)


@dataclass(frozen=True)
class Price:
    """Dollars for a million tokens."""

    prompt: Decimal
    completion: Decimal

    def of(self, prompt: int, completion: int) -> Decimal:
        """Of so many tokens, in dollars, exact."""
        return (self.prompt * prompt + self.completion * completion) / 1_000_000


@dataclass(frozen=True)
class Choice:
    """One answer of a reply."""

    text: str
    finish_reason: str
    """As the server names it; "refusal" where it says so."""
    logprobs: Any = None
    """As the server wrote them."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What the message holds besides, such as the model's reasoning."""


@dataclass(frozen=True)
class Reply:
    """What a server answered to one request."""

    choices: tuple[Choice, ...]
    model: str
    """As the server calls it."""
    usage: tuple[int, int] | None
    """(Prompt tokens, completion tokens of all choices together); None where the server does not say."""


class Rubbish(Exception):
    """A reply that is no answer: `kind` is its short name, the message what is wrong with it."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def reply_of(raw: bytes, count: int) -> Reply:
    """The reply that a body holds. Raises Rubbish."""
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Rubbish("no JSON", str(error)) from None
    if not isinstance(tree, dict):
        raise Rubbish("no object", f"the body is {_shown(tree)}")
    if "choices" not in tree and "error" in tree:
        raise Rubbish("an error", error_in(raw))
    choices = tree.get("choices")
    if not isinstance(choices, list):
        raise Rubbish("no choices", f"choices is {_shown(choices)}")
    if len(choices) != count:
        kind = "wrong number" if choices else "empty choices"
        raise Rubbish(kind, f"{len(choices)} choices where {count} were asked for")
    if not all(isinstance(one, dict) for one in choices):
        raise Rubbish("no choices", "a choice is no object")
    if count > 1:
        if sorted((one.get("index") for one in choices), key=str) != sorted(range(count), key=str):
            raise Rubbish("wrong indices", f"the choices' are not 0 to {count - 1}")
        choices = sorted(choices, key=lambda one: one["index"])
    model = tree.get("model")
    return Reply(tuple(map(_choice, choices)), model if isinstance(model, str) else "", usage_of(tree))


def _choice(tree: dict[str, Any]) -> Choice:
    message, reason = tree.get("message"), tree.get("finish_reason")
    if not isinstance(message, dict) or "content" not in message:
        raise Rubbish("no text", "a choice has no message.content")
    if not isinstance(reason, str) or not reason:
        raise Rubbish("no finish_reason", f"a choice's is {_shown(reason)}")
    if message.get("refusal"):
        reason = "refusal"
    text = message["content"]
    if text is None and reason in (*SILENT, "refusal"):
        text = ""
    if not isinstance(text, str):
        raise Rubbish("no text", f"a choice's message.content is {_shown(text)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Rubbish("no text", "a choice holds half a character") from None
    more = {name: value for name, value in message.items() if value and name not in ("role", "content")}
    return Choice(text, reason, tree.get("logprobs"), more)


def usage_of(tree: Any) -> tuple[int, int] | None:
    """What a reply says it cost, if it says so in whole numbers."""
    usage = tree.get("usage") if isinstance(tree, dict) else None
    found = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    if not found or not all(type(one) is int and one >= 0 for one in found):
        return None
    return found[0], found[1]


def error_in(raw: bytes) -> str:
    """What a server says is wrong, in at most 300 characters of one line."""
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError):
        tree = raw.decode("utf-8", "replace")
    if isinstance(tree, dict):
        tree = tree.get("error", tree.get("detail", tree))
    if isinstance(tree, dict):
        tree = tree.get("message", tree)
    return " ".join((tree if isinstance(tree, str) else json.dumps(tree)).split())[:300]


def _shown(value: Any) -> str:
    return "missing or null" if value is None else json.dumps(value)[:60]
