"""What may be asked of an OpenAI-compatible server, and how an answer is written: bodies in, bodies out.

A field that this server does not honor is refused by its name, unless it has the value that changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from jaxlm.config.sampling import Options
from jaxlm.sampling.several import Drawn, Likely, Prompt
from jaxlm.tokenizers.protocol import Tokenizer, stream

MOST_CHOICES = 128
MOST_LIKELY = 20
LOWEST = -9999.0
"""What a log-probability of minus infinity is written as, which JSON has no word for."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "stream": (False,),
    "stream_options": (),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
}
"""Fields known but not honored, and the values that ask for nothing."""
IGNORED = ("user", "metadata", "store", "safety_identifier")
"""Fields that say nothing about the answer."""
DRAWN = ("model", "max_tokens", "n", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "logprobs")
FIELDS = {
    "completions": ("prompt", *DRAWN),
    "chat": ("messages", "max_completion_tokens", "top_logprobs", *DRAWN),
}


class Refused(Exception):
    """A request that gets OpenAI's error and its status instead of an answer."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400):
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status

    def as_json(self) -> dict[str, Any]:
        """The body of the reply."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Wanted:
    """A request that can be answered."""

    options: Options
    """`tokens` is 0 where the request leaves the number to the server."""
    seeded: bool
    stop: tuple[str, ...]
    best: int | None
    """How many of the likeliest tokens are to be told beside each token; None is none and no log-probabilities."""
    prompts: tuple[Prompt, ...] = ()
    messages: tuple[dict[str, str], ...] = ()


def body_of(raw: bytes) -> dict[str, Any]:
    """A request's JSON. Raises Refused."""

    def constant(word: str) -> NoReturn:
        raise ValueError(f"{word} is no JSON")

    try:
        body = json.loads(raw, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(f"the body must be an object, not {_kind(body)}")
    return body


def completion(body: dict[str, Any]) -> Wanted:
    """A request to /v1/completions. Raises Refused."""
    _known(body, "completions")
    best = _number(body, "logprobs", int, 0, MOST_LIKELY, None)
    return Wanted(prompts=_prompts(body.get("prompt")), best=best, **_drawn(body, "max_tokens", 16))


def chat(body: dict[str, Any]) -> Wanted:
    """A request to /v1/chat/completions. Raises Refused."""
    _known(body, "chat")
    limits = [name for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None]
    if len(limits) > 1:
        raise Refused("max_tokens and max_completion_tokens are one thing: give one of them", "max_tokens")
    asked = body.get("logprobs")
    if asked is not None and not isinstance(asked, bool):
        raise Refused(f"logprobs must be true or false, not {_kind(asked)}", "logprobs")
    best = _number(body, "top_logprobs", int, 0, MOST_LIKELY, None)
    if best is not None and not asked:
        raise Refused("top_logprobs needs logprobs: true", "top_logprobs")
    drawn = _drawn(body, limits[0] if limits else "max_tokens", 0)
    return Wanted(messages=_messages(body.get("messages")), best=(best or 0) if asked else None, **drawn)


def _known(body: dict[str, Any], endpoint: str) -> None:
    for name, value in body.items():
        if name in FIELDS[endpoint] or name in IGNORED:
            continue
        if name not in NEUTRAL:
            raise Refused(f"unknown field {name!r}: {endpoint} takes {', '.join(FIELDS[endpoint])}", name)
        if value is not None and value not in NEUTRAL[name]:
            raise Refused(f"this server has no {name}: leave it out", name, "unsupported_parameter")


def _drawn(body: dict[str, Any], limit: str, tokens: int) -> dict[str, Any]:
    """What both kinds of requests say of drawing."""
    seed = _number(body, "seed", int, -(2**31), 2**31 - 1, None)
    temperature = _number(body, "temperature", float, 0.0, 100.0, 1.0)
    if 0 < temperature < 1e-5:
        raise Refused(f"temperature is {temperature}: 0, or at least 1e-5", "temperature")
    top_p = _number(body, "top_p", float, 0.0, 1.0, 1.0)
    if not top_p:
        raise Refused("top_p must be above 0", "top_p")
    options = Options(
        tokens=_number(body, limit, int, 1, 2**31 - 1, tokens),
        temperature=temperature,
        top_k=_number(body, "top_k", int, 0, 2**31 - 1, 0),
        top_p=top_p,
        min_p=_number(body, "min_p", float, 0.0, 1.0, 0.0),
        seed=seed or 0,
        samples=_number(body, "n", int, 1, MOST_CHOICES, 1),
    )
    return {"options": options, "seeded": seed is not None, "stop": _stop(body.get("stop"))}


def _number(body: dict[str, Any], name: str, kind: type, low: float, high: float, default: Any) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise Refused(f"{name} must be {'an integer' if kind is int else 'a number'}, not {_kind(value)}", name)
    if not low <= value <= high:
        raise Refused(f"{name} is {value}: must be at least {low} and at most {high}", name)
    return kind(value)


def _stop(value: Any) -> tuple[str, ...]:
    texts = () if value is None else (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(one, str) and one for one in texts):
        raise Refused("stop must be a text or a list of texts, none of them empty", "stop")
    if len(texts) > 4:
        raise Refused(f"stop has {len(texts)} texts: at most 4", "stop")
    return tuple(texts)


def _prompts(value: Any) -> tuple[Prompt, ...]:
    several = value if isinstance(value, list) and not _all(value, _is_token) else [value]
    if several and _all(several, lambda one: isinstance(one, str)):
        return tuple(_text(one, "prompt") for one in several)
    if several and _all(several, lambda one: isinstance(one, list) and one and _all(one, _is_token)):
        return tuple(map(tuple, several))
    raise Refused("prompt must be a text, tokens, or a list of either, and not empty", "prompt")


def _all(values: Any, holds: Callable[[Any], Any]) -> bool:
    return all(map(holds, values))


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _messages(value: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise Refused("messages must be a list of at least one message", "messages")
    return tuple(_message(one, f"messages[{place}]") for place, one in enumerate(value))


def _message(one: Any, place: str) -> dict[str, str]:
    if not isinstance(one, dict) or not isinstance(one.get("role"), str):
        raise Refused(f"{place} must have a role and a content", "messages")
    if more := sorted(one.keys() - {"role", "content", "name"}):
        raise Refused(f"{place} has {', '.join(more)}: this server knows role and content", "messages")
    content = one.get("content")
    if isinstance(content, list):
        if not _all(content, lambda part: isinstance(part, dict) and part.get("type") == "text"):
            raise Refused(f"{place}: of the parts of a content this server knows texts only", "messages")
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise Refused(f"{place} must have a text as its content, not {_kind(content)}", "messages")
    return {"role": _text(one["role"], "messages"), "content": _text(content, "messages")}


def _text(value: str, param: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(f"{param} holds half a character, which is no text", param) from None
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else f"{json.dumps(value)[:40]}"


# --- answers -----------------------------------------------------------------------------------------------


def choice(tokenizer: Tokenizer, number: int, drawn: Drawn, wanted: Wanted) -> dict[str, Any]:
    """One of the choices of a reply."""
    reason = {"index": number, "finish_reason": "stop" if drawn.stopped else "length"}
    told = wanted.best is not None
    if not wanted.messages:
        return {**reason, "text": drawn.text, "logprobs": _columns(tokenizer, drawn) if told else None}
    message = {"role": "assistant", "content": drawn.text, "refusal": None}
    likely = {"content": _content(tokenizer, drawn), "refusal": None} if told else None
    return {**reason, "message": message, "logprobs": likely}


def _shown(drawn: Drawn, tokenizer: Tokenizer) -> Iterator[tuple[int, Likely, int]]:
    """(token, how likely, where its text begins) of the tokens that begin within the text."""
    offset = 0
    for token, likely, piece in zip(drawn.ids, drawn.likely, stream(tokenizer, drawn.ids)):
        if offset < len(drawn.text) or not drawn.stopped:
            yield token, likely, offset
        offset += len(piece)


def _content(tokenizer: Tokenizer, drawn: Drawn) -> list[dict[str, Any]]:
    def told(token: int, nats: float) -> dict[str, Any]:
        raw = tokenizer.bytes_of([token])
        return {"token": tokenizer.decode([token]), "logprob": max(nats, LOWEST), "bytes": list(raw)}

    return [
        {**told(token, likely.nats), "top_logprobs": [told(*one) for one in likely.best]}
        for token, likely, _ in _shown(drawn, tokenizer)
    ]


def _columns(tokenizer: Tokenizer, drawn: Drawn) -> dict[str, list[Any]]:
    """Offsets count from the beginning of the answer; of tokens with one text the likeliest is told."""
    shown = list(_shown(drawn, tokenizer))
    others = []
    for token, likely, _ in shown:
        pairs = [*likely.best, (token, likely.nats)]
        others.append({tokenizer.decode([one]): max(nats, LOWEST) for one, nats in reversed(pairs)})
    return {
        "tokens": [tokenizer.decode([token]) for token, _, _ in shown],
        "token_logprobs": [max(likely.nats, LOWEST) for _, likely, _ in shown],
        "top_logprobs": others,
        "text_offset": [offset for _, _, offset in shown],
    }
