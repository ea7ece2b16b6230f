"""An answer of a teacher with where it comes from, and a line of training data of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxlm.config.data import ASSISTANT
from jaxlm.distill.request import Prompt


@dataclass(frozen=True)
class Sample:
    """One answer to one prompt."""

    prompt: Prompt
    index: int
    """Which of the answers to its prompt it is."""
    text: str
    finish_reason: str
    key: str
    """The name that it is kept by."""
    origin: Mapping[str, Any]
    """Who answered what, when and for how many tokens."""
    logprobs: Any = None
    """As the teacher wrote them, where they were asked for."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else its message held, such as its reasoning."""


def row(sample: Sample, passed: Sequence[str]) -> dict[str, Any]:
    """A conversation that `data:conversations` reads, with all that is known of its answer.

    `passed` names the filters that did not drop it.
    """
    messages = [dict(one) for one in sample.prompt.messages]
    known = {
        "prompt": sample.prompt.name,
        "sample": sample.index,
        "key": sample.key,
        "finish_reason": sample.finish_reason,
        **sample.origin,
        "filters": list(passed),
    }
    if sample.more:
        known["message"] = dict(sample.more)
    whole = {"messages": [*messages, {"role": ASSISTANT, "content": sample.text}], "provenance": known}
    return whole | ({} if sample.logprobs is None else {"logprobs": sample.logprobs})
