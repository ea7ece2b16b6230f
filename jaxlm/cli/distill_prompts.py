"""What `jaxlm distill api` is given: prompts, and the evaluation items that nothing may be shared with."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from jaxlm.config.errors import Failure, UsageError
from jaxlm.corpus.answers import final_number
from jaxlm.corpus.documents import json_object, lines, named_files
from jaxlm.distill import contamination
from jaxlm.distill.request import Prompt


def prompts_of(o: argparse.Namespace) -> list[Prompt]:
    """All prompts of the files. Raises UsageError, and Failure with the file and the line."""
    found = []
    for path, name in named_files(tuple(o.prompts), (".jsonl",), "PROMPTS"):
        for number, line in lines(path):
            if o.limit and len(found) == o.limit:
                return found
            place = f"{str(path)!r}, line {number}"
            found.append(_prompt(o, json_object(line, place), f"{name}:{number}", place))
    if not found:
        raise UsageError(f"there is no prompt in {', '.join(o.prompts)}")
    return found


def _prompt(o: argparse.Namespace, record: dict[str, Any], name: str, place: str) -> Prompt:
    asked = record.get(o.prompt)
    messages = record.get("messages", None if asked is None else [{"role": "user", "content": asked}])
    if messages is None:
        has = ", ".join(map(repr, record)) or "nothing"
        raise Failure(f"{place}: there is no {o.prompt!r} nor 'messages', only {has}; set --prompt")
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise Failure(f'{place}: expected a text, or a list of {{"role", "content"}} that are texts')
    if messages[-1]["role"] != "user":
        raise Failure(f"{place}: the last message is of {messages[-1]['role']!r}, and a user's is to be answered")
    messages = [{"role": one["role"], "content": one["content"]} for one in messages]
    if o.system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": o.system}, *messages]
    answer = record.get(o.answer, "")
    if o.verify and not (isinstance(answer, str | int | float) and str(answer).strip()):
        raise Failure(f"{place}: there is no answer in {o.answer!r} to verify by; set --answer")
    if o.verify == "number" and final_number(str(answer)) is None:
        raise Failure(f"{place}: {o.answer!r} holds no number: {str(answer)[:60]!r}")
    return Prompt(name, tuple(messages), str(answer) if o.verify else "")


def _is_message(one: Any) -> bool:
    texts = [one.get(key) for key in ("role", "content")] if isinstance(one, dict) else [None]
    with contextlib.suppress(UnicodeEncodeError):
        return all(isinstance(text, str) and text.encode() is not None for text in texts)
    return False


def items_of(o: argparse.Namespace) -> contamination.Items:
    """The evaluation items that nothing may be shared with."""
    from jaxlm.evaluate.contamination import texts_of

    found: list[list[str]] = []
    tasks = [path for path in o.clean_of if path.endswith(".py")]
    if tasks:
        from jaxlm.config.load import load_all_tasks
        from jaxlm.evaluate.records import read, root_of

        for task in load_all_tasks(tasks, lambda task: task):
            found += map(texts_of, read(task.data, root_of(o.data or None)))
    others = tuple(path for path in o.clean_of if not path.endswith(".py"))
    for path, _ in named_files(others, (".jsonl", ".txt"), "--clean-of") if others else ():
        if path.suffix == ".txt":
            found.append([raw.decode("utf-8", "replace") for _, raw in lines(path)])
        else:
            found += [texts_of(json_object(raw, f"{str(path)!r}, line {number}")) for number, raw in lines(path)]
    items = contamination.Items(found)
    if not items.runs:
        raise UsageError(f"--clean-of {' '.join(o.clean_of)}: no text of {contamination.LEAST} words or more in it")
    if items.short:
        print(f"{items.short} of {len(found)} evaluation items are too short to be looked for", file=sys.stderr)
    return items


def dirty(items: contamination.Items, prompt: Prompt) -> bool:
    return any(items.shared(one["content"]) for one in prompt.messages)
