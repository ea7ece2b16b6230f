"""The model of a run that is going on, whole on one device: to be asked tasks and to draw samples from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from jaxlm.config import Pipeline
from jaxlm.distill.student import kept
from jaxlm.layers.axes import shardings
from jaxlm.layers.contracts import Call
from jaxlm.parallel.layout import single_device
from jaxlm.runs.journal import read_metrics
from jaxlm.tokenizers import Tokenizer
from jaxlm.train.state import State

if TYPE_CHECKING:
    from jaxlm.train.session import Session


@dataclass(frozen=True)
class Answers:
    """What a model came to."""

    found: dict[str, tuple[float, float, float]]
    """Of each metric, `task/metric`, its value and its interval's ends."""
    failed: dict[str, str]
    """Why tasks could not be asked, by name."""


Ask = Callable[[Any, Tokenizer, Call], Answers]
"""ask(model, tokenizer, call). Process 0 alone is asked: a task that fails is told, and stops no training."""


def alone(session: Session, state: State) -> tuple[Any, Call] | None:
    """The trained model on the first device of process 0, and how it is computed there; None elsewhere.

    All processes must call it. It is as large as that device must hold.
    """
    model = kept(_at_process_0(state.whole()))
    if jax.process_index():
        return None
    layout = single_device()
    # What is chosen for the training mesh may be nothing for a single device, which chooses for itself.
    call = dataclasses.replace(
        session.setup.call, layout=layout, attention="auto", remat="none", pipeline=Pipeline()
    )
    return jax.device_put(model, shardings(model, layout)), call


def ask(session: Session, done: int, state: State) -> None:
    """What tasks come to after so many steps: in the journal, on TensorBoard and in a line each."""
    with session.clock("evaluate"):
        held = alone(session, state)
        if held is None or session.tasks is None:
            return
        model, call = held
        answers = session.tasks(model, session.prepared.tokenizer, call)
    failed = {"failed": answers.failed} if answers.failed else {}
    session.journal.write("tasks", done, **answers.found, **failed)
    if session.tensorboard is not None:
        session.tensorboard(done, {f"tasks/{name}": value for name, (value, _, _) in answers.found.items()})
    for name, (value, low, high) in answers.found.items():
        session.display.say(f"step {done} {name} {value:.4f} ({low:.4f} to {high:.4f})")
    for why in answers.failed.values():
        session.display.say(f"step {done} could not ask {why}")


def unasked(session: Session, done: int) -> bool:
    """Whether an attempt ended after it had saved this state, and before its tasks were asked; process 0 knows."""
    every, last = session.experiment.where.every.tasks, session.experiment.train.steps
    if session.tasks is None or not every or not (done % every == 0 or done == last):
        return False
    return all(one["step"] != done for one in read_metrics(session.run.path, ("tasks",)))


def _at_process_0(model: PyTree) -> PyTree:
    """The model where process 0 can read all of it; elsewhere nothing is kept."""
    if jax.process_count() == 1:
        return model

    def gathered(leaf: jax.Array) -> np.ndarray | None:
        whole = multihost_utils.process_allgather(leaf, tiled=True)
        return None if jax.process_index() else whole

    return jax.tree.map(gathered, model)
