"""Tasks that are asked of a model while it is trained."""

from __future__ import annotations

from typing import Any

from jaxlm.config.experiment import Experiment
from jaxlm.config.load import load_tasks
from jaxlm.config.task_check import check_task
from jaxlm.evaluate.ask import ask
from jaxlm.evaluate.records import root_of
from jaxlm.evaluate.subject import subject
from jaxlm.layers.contracts import Call
from jaxlm.tokenizers import Tokenizer
from jaxlm.train.alone import Ask


def of_experiment(experiment: Experiment) -> Ask | None:
    """What asks the tasks of `where.tasks`, whose items are read now; None where there are none.

    Raises UsageError for what is wrong with their files and data.
    """
    tasks = [task for name in experiment.where.tasks for task in load_tasks(name)]
    for task in tasks:
        check_task(task)
    asked = [ask(task, root_of(None)) for task in tasks]

    def answers(model: Any, tokenizer: Tokenizer, call: Call) -> dict[str, tuple[float, float, float]]:
        found = subject(model, tokenizer, call, experiment)
        return {
            f"{one.task.name}/{metric.name}": (metric.value, metric.low, metric.high)
            for one in asked
            for metric in one.run(found).metrics
        }

    return answers if asked else None
