"""Conversations out of JSON lines: a prompt and its answer, or a list of messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jaxlm.config.data import ASSISTANT, Conversations
from jaxlm.config.errors import Failure
from jaxlm.corpus.documents import Document, json_object, lines, named_files

Messages = list[dict[str, str]]
"""Each with its "role" and its "content"."""


def conversations(data: Conversations) -> Iterator[Document]:
    """All conversations of the files, in order, each as JSON that `messages` reads.

    Raises UsageError for a path that names no `.jsonl` file; Failure, with the file and the line, for one that
    cannot be read or holds no conversation with an answer.
    """
    for path, name in named_files(data.paths, (".jsonl",), "data.paths"):
        for number, line in lines(path):
            found = _messages(line, data, f"{str(path)!r}, line {number}")
            yield Document(f"{name}:{number}", json.dumps(found, ensure_ascii=False))


def messages(document: str) -> Messages:
    """The messages of a conversation's text."""
    return json.loads(document)


def spoken(document: Document) -> Document:
    """The same conversation as it is heard: what users and the model say, and no instructions of the system's."""
    said = [one["content"] for one in messages(document.text) if one["role"] != "system"]
    return Document(document.name, "\n\n".join(said))


def _messages(line: bytes, data: Conversations, place: str) -> Messages:
    record = json_object(line, place)
    if data.messages in record:
        return _checked(record[data.messages], f"{place}, {data.messages!r}")
    fields = {"user": data.prompt, ASSISTANT: data.answer}
    for field in fields.values():
        if field not in record:
            has = ", ".join(map(repr, record)) or "nothing"
            raise Failure(
                f"{place}: there is no {field!r} (nor {data.messages!r}), only {has}; set data.prompt and "
                "data.answer"
            )
    return _checked([{"role": role, "content": record[field]} for role, field in fields.items()], place)


def _checked(found: Any, place: str) -> Messages:
    """Messages as they should be, and none after the last answer."""
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Failure(f'{place}: expected a list of {{"role", "content"}}')
    result = []
    for number, one in enumerate(found, start=1):
        for key in ("role", "content"):
            if not isinstance(one.get(key), str):
                raise Failure(f"{place}: message {number} has no text as its {key!r}")
            try:
                one[key].encode()
            except UnicodeEncodeError:
                raise Failure(f"{place}: message {number} holds half a character, which is no text") from None
        result.append({"role": one["role"], "content": one["content"]})
    answers = [i for i, one in enumerate(result) if one["role"] == ASSISTANT]
    if not answers:
        raise Failure(f"{place}: nothing is said by the role {ASSISTANT!r}, so there is nothing to learn")
    return result[: answers[-1] + 1]
