"""Tasks that are asked of a model while it is trained."""

from __future__ import annotations

from typing import Any

from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.load import load_all_tasks
from jaxlm.config.task_fit import check_fit
from jaxlm.evaluate.ask import ask
from jaxlm.evaluate.records import root_of
from jaxlm.evaluate.subject import subject
from jaxlm.layers.contracts import Call
from jaxlm.tokenizers import Tokenizer
from jaxlm.train.alone import Answers, Ask


def of_experiment(experiment: Experiment) -> Ask | None:
    """What asks the tasks of `where.tasks`, whose items are read now; None where there are none.

    Raises UsageError for what is wrong with their files and data, and for a task that is not for such a model. What
    only a trained model's tokens tell, such as a text longer than it reads, is told with the answers.
    """
    tasks = load_all_tasks(experiment.where.tasks)
    check_fit(tasks, experiment)
    asked = [ask(task, root_of(None)) for task in tasks]

    def answers(model: Any, tokenizer: Tokenizer, call: Call) -> Answers:
        found, failed = {}, {}
        of = subject(model, tokenizer, call, experiment)
        for one in asked:
            try:
                metrics = one.run(of).metrics
            except (UsageError, Failure) as error:
                failed[one.task.name] = str(error)
                continue
            found |= {f"{one.task.name}/{each.name}": (each.value, each.low, each.high) for each in metrics}
        return Answers(found, failed)

    return answers if asked else None
