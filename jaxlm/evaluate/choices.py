"""The likeliest of several answers, under each normalization."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxlm.config.errors import UsageError
from jaxlm.config.tasks import Choices
from jaxlm.evaluate.pairs import by_group
from jaxlm.evaluate.prompts import opened
from jaxlm.evaluate.records import Item
from jaxlm.evaluate.results import Asked, Metric, Result, Subject, digest, mean, share, shortened
from jaxlm.evaluate.score import Scored, score
from jaxlm.evaluate.template import render, values
from jaxlm.evaluate.tokens import after

LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class Question:
    """An item as it is asked."""

    prompt: str
    choices: tuple[str, ...]
    """What is scored, without the delimiter before it: the answers' words, or letters."""
    right: int
    group: str
    cluster: str


def ask(task: Choices, root: Path) -> Asked:
    """The questions. Raises UsageError as `records.read` and `template.render` do, for items without choices, with
    more than there are letters or with one that is empty, and for an answer that is no choice's label.
    """
    items, before = opened(task.data, task.shots, root, lambda item: _worked(task, item))
    questions = [_question(task, item, before) for item in items]
    name = digest("choices", task.prompt, task.cue, task.choices, task.form, task.delimiter, before)
    return Asked(task, name, len(items), lambda subject: measure(task, name, questions, subject))


def _question(task: Choices, item: Item, before: str = "") -> Question:
    texts = [each for one in task.choices for each in values(one, item)]
    labels = [each for one in task.labels for each in values(one, item)] or [str(i) for i in range(len(texts))]
    answer = render(task.answer, item)
    if len(texts) < 2 or len(labels) != len(texts) or len(texts) > len(LETTERS):
        raise UsageError(
            f"an item has {len(texts)} choices and {len(labels)} labels: expected 2 to 26, and as many"
        )
    if answer not in labels:
        raise UsageError(f"the answer {answer!r} is no choice's label: these are {', '.join(labels)}")
    prompt = render(task.prompt, item)
    if task.form == "letters":
        listed = [f" {letter}. {text}\n" for letter, text in zip(LETTERS, texts)]
        prompt, texts = prompt + "".join(listed), list(LETTERS[: len(texts)])
    if not all(text.strip() for text in texts):
        raise UsageError(f"the choices of {prompt[:40]!r} are {', '.join(map(repr, texts))}: one is empty")
    group, cluster = render(task.group, item), render(task.cluster, item)
    return Question(before + prompt + task.cue, tuple(texts), labels.index(answer), group, cluster)


def _worked(task: Choices, item: Item) -> str:
    question = _question(task, item)
    return question.prompt + task.delimiter + question.choices[question.right]


def measure(task: Choices, name: str, questions: list[Question], subject: Subject) -> Result:
    """Every choice after its prompt and, for `pmi`, after the cue alone."""
    requests, bare = [], []
    for question in questions:
        answers = [task.delimiter + text for text in question.choices]
        context, ids = after(subject.tokenizer, question.prompt, answers)
        requests += [(context, each) for each in ids]
        if "pmi" in task.normalizations:
            context, ids = after(subject.tokenizer, task.cue, answers)
            bare += [(context, each) for each in ids]
    scored, alone = score(subject, requests), score(subject, bare)
    items, cut, right = [], [], {one: [] for one in task.normalizations}
    start = 0
    for question in questions:
        end = start + len(question.choices)
        of = slice(start, end)
        chosen = {one: _chosen(one, question.choices, scored[of], alone[of]) for one in right}
        for one, choice in chosen.items():
            right[one].append(choice == question.right)
        nats = [each.total for each in scored[of]]
        entry = {"hash": digest(question.prompt, question.choices), "nats": nats, "right": question.right}
        unconditional = {"unconditional": [each.total for each in alone[of]]} if alone else {}
        items.append(entry | unconditional | {"chosen": chosen})
        cut.append(any(each.cut for each in scored[of]))
        start = end
    columns = {_metric(one): np.array(each) for one, each in right.items()}
    metrics = tuple(_accuracy(key, each, task, questions) for key, each in columns.items())
    groups = by_group(columns, [question.group for question in questions])
    return Result(task, name, metrics, items, groups, shortened(cut))


def _metric(normalization: str) -> str:
    return "accuracy" if normalization == "none" else f"accuracy_{normalization}"


def _accuracy(name: str, right: np.ndarray, task: Choices, questions: list[Question]) -> Metric:
    if not task.cluster:
        return share(name, right)
    return mean(name, right.astype(float), np.array([question.cluster for question in questions]))


def _chosen(normalization: str, choices: Sequence[str], scored: list[Scored], alone: list[Scored]) -> int:
    totals = np.array([one.total for one in scored])
    bare = np.array([one.total for one in alone])
    tokens = np.array([len(one.nats) for one in scored])
    return int(np.argmax(normalized(normalization, totals, tokens, choices, bare)))


def normalized(
    normalization: str,
    nats: Float[np.ndarray, "choice"],
    tokens: Int[np.ndarray, "choice"],
    choices: Sequence[str],
    unconditional: Float[np.ndarray, "_"],
) -> Float[np.ndarray, "choice"]:
    """What choices are compared by (OLMES, arXiv:2406.08446, section 4.2): log-probabilities, or these divided by
    tokens, characters or bytes of UTF-8, or less those without the question.

    Characters and bytes are those of the choice without the delimiter.
    """
    match normalization:
        case "none":
            return nats
        case "token":
            return nats / tokens
        case "character":
            return nats / np.array([len(text) for text in choices])
        case "byte":
            return nats / np.array([len(text.encode()) for text in choices])
        case "pmi":
            return nats - unconditional
    raise UsageError(f"no normalization {normalization!r}: expected none, token, character, byte or pmi")
