"""Answers that a model writes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jaxlm.config.errors import UsageError
from jaxlm.config.tasks import Generation
from jaxlm.corpus.answers import extract, number
from jaxlm.evaluate import answers
from jaxlm.evaluate.draw import Drawn, draw
from jaxlm.evaluate.prompts import opened
from jaxlm.evaluate.records import Item
from jaxlm.evaluate.results import Asked, Metric, Result, Subject, digest, mean, share, shortened
from jaxlm.evaluate.template import render, values
from jaxlm.evaluate.tokens import opening


@dataclass(frozen=True)
class Question:
    """An item as it is asked."""

    prompt: str
    right: tuple[str, ...]
    cluster: str


def ask(task: Generation, root: Path) -> Asked:
    """The questions. Raises UsageError as `records.read` and `template.render` do, for an item without a right
    answer, and for one without a number that is to be equal as a number.
    """
    items, before = opened(task.data, task.shots, root, lambda item: _worked(task, item))
    questions = [_question(task, item, before) for item in items]
    asked = (task.prompt, task.delimiter, before, task.stop, asdict(task.draw))
    name = digest("generation", *asked)
    return Asked(task, name, len(items), lambda subject: measure(task, name, questions, subject))


def _question(task: Generation, item: Item, before: str) -> Question:
    given = values(task.answer, item)
    right = [extract(one, task.answer_pattern, task.take) for one in given]
    if not right or None in right:
        raise UsageError(f"no right answer in {str(given)[:60]}: answer_pattern is {task.answer_pattern!r}")
    if "number" in task.metrics and not any(number(one) is not None for one in right):
        raise UsageError(
            f"no right answer in {str(right)[:60]} is a number: answer_pattern is {task.answer_pattern!r}"
        )
    return Question(before + render(task.prompt, item), tuple(right), render(task.cluster, item))


def _worked(task: Generation, item: Item) -> str:
    given = values(task.answer, item)
    if not given:
        raise UsageError("a worked example has no answer")
    return render(task.prompt, item) + task.delimiter + given[0]


def measure(task: Generation, name: str, questions: list[Question], subject: Subject) -> Result:
    """Every sample of every question."""
    prompts = [opening(subject.tokenizer, question.prompt) for question in questions]
    drawn = draw(subject, prompts, task.draw, task.stop)
    found = [[extract(one.text, task.pattern, task.take) for one in each] for each in drawn]
    scores = {
        metric: np.array([_judged(task, metric, each, question) for each, question in zip(found, questions)])
        for metric in task.metrics
    }
    clusters = np.array([question.cluster for question in questions]) if task.cluster else None
    metrics = [_metric(metric, each, clusters) for metric, each in scores.items()]
    first = scores[task.metrics[0]]
    for k in task.passes:
        chances = np.array([answers.pass_at(k, round(each.sum()), each.size) for each in first])
        metrics.append(mean(f"pass@{k}", chances, clusters))
    if task.vote:
        votes = [[answers.vote(each, _same(task))] for each in found]
        judged = [_judged(task, task.metrics[0], each, question) for each, question in zip(votes, questions)]
        metrics.append(_metric(f"{task.metrics[0]}_vote", np.array(judged), clusters))
    answered = np.array([[one is not None for one in each] for each in found], float)
    if task.pattern:
        metrics.append(_metric("answered", answered, clusters))
    notes = shortened([each[0].cut for each in drawn], "left no room for an answer")
    items = [_entry(task, *each) for each in zip(questions, drawn, found, *scores.values())]
    return Result(task, name, tuple(metrics), items, notes=notes)


def _metric(name: str, scores: np.ndarray, clusters: np.ndarray | None) -> Metric:
    """Of scores [item, sample]: a share where each item is right or wrong, else a mean."""
    per_item = scores.mean(axis=1)
    if clusters is None and np.isin(per_item, (0, 1)).all() and not name.startswith("f1"):
        return share(name, per_item == 1)
    return mean(name, per_item, clusters)


def _judged(task: Generation, metric: str, found: list[str | None], question: Question) -> list[float]:
    how, right = task.normalization, question.right
    by: dict[str, Callable[[str], float]] = {
        "exact_match": lambda one: answers.exact_match(one, right, how),
        "number": lambda one: answers.same_number(one, right),
        "f1": lambda one: answers.f1(one, right, how),
    }
    return [0.0 if one is None else by[metric](one) for one in found]


def _same(task: Generation) -> Callable[[str], Hashable]:
    """What two answers share that are one to the first metric."""
    if task.metrics[0] == "number":
        return number
    return lambda text: answers.normalize(text, task.normalization)


def _entry(task: Generation, question: Question, drawn: list[Drawn], found: list[str | None], *scores) -> dict:
    return {
        "hash": digest(question.prompt),
        "texts": [one.text for one in drawn],
        "answers": found,
        "right": list(question.right),
        "scores": {metric: each.tolist() for metric, each in zip(task.metrics, scores)},
    }
