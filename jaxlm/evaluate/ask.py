"""From a task to what is asked of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.tasks import Choices, Generation, LastWord, MinimalPairs, Perplexity, Task
from jaxlm.config.vector_tasks import Clustering, Labels, Probe, Retrieval, Similarity
from jaxlm.evaluate import choices, generation, labels, last_word, pairs, perplexity, vector_tasks
from jaxlm.evaluate.results import Asked, Result, Subject


def ask(task: Task, root: Path) -> Asked:
    """A task with its items, from files below `root`; no model is needed yet.

    Raises UsageError for files that are not there, fields that items do not have and templates that are wrong. What
    `run` raises begins with the task's name, too.
    """
    with named(task.name):
        asked = _ask(task, root)

    def run(subject: Subject) -> Result:
        with named(task.name):
            return asked.run(subject)

    return replace(asked, run=run)


@contextmanager
def named(task: str) -> Iterator[None]:
    """What is raised within, with the name of the task that it is about."""
    try:
        yield
    except (UsageError, Failure) as error:
        raise type(error)(f"{task}: {error}") from error


def _ask(task: Task, root: Path) -> Asked:
    match task:
        case Perplexity():
            return perplexity.ask(task, root)
        case Choices():
            return choices.ask(task, root)
        case MinimalPairs():
            return pairs.ask(task, root)
        case LastWord():
            return last_word.ask(task, root)
        case Generation():
            return generation.ask(task, root)
        case Similarity() | Clustering() | Probe() | Retrieval():
            return vector_tasks.ask(task, root)
        case Labels():
            return labels.ask(task, root)
