"""One attempt at a run, and what it does at its cadences."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxlm.config import Experiment
from jaxlm.data.prepare import Prepared
from jaxlm.data.rows import Rows
from jaxlm.runs import goodput
from jaxlm.runs.directory import Run, record
from jaxlm.runs.journal import Journal
from jaxlm.runs.plans import Plan
from jaxlm.train import feed, held_out, optimizers, telemetry
from jaxlm.train.alone import Ask
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.loop import Metrics
from jaxlm.train.progress import Display
from jaxlm.train.setup import Setup
from jaxlm.train.state import State


@dataclass
class Session:
    """One attempt at a run: what its parts share."""

    run: Run
    setup: Setup
    prepared: Prepared
    checkpoints: Checkpoints
    journal: Journal
    clock: goodput.Clock
    display: Display
    metrics: Metrics
    rows: Rows
    held_out_rows: Rows
    tensorboard: Any = None
    logged: tuple[float, int] = (0.0, 0)
    """Time and step of the last logged line."""
    plan: Plan | None = None
    """That of these devices, to be compared with what is measured."""
    marks: list[tuple[int, float]] = field(default_factory=list)
    """(Steps, seconds spent on them and on waiting for their data) at the start and at each logged line."""
    evaluate: held_out.Evaluate | None = None
    tasks: Ask | None = None
    newest: dict[str, float] = field(default_factory=dict)
    """The newest evaluation."""
    loss: float = math.nan
    """Of the newest step that was looked at."""

    @property
    def scalars(self) -> tuple[str, ...]:
        """Metrics of a step that are plain numbers."""
        return ("loss", *self.setup.objective.coefficients, "gradient_norm")

    @property
    def experiment(self) -> Experiment:
        """What is computed."""
        return self.setup.experiment


def settle(session: Session) -> None:
    """Look at all metrics so far: journal them, and stop if one is not finite."""
    experiment = session.experiment
    cadence, last = experiment.where.every.log, experiment.train.steps
    rate = optimizers.learning_rate(experiment.optimizer, last)
    with session.clock("step"):  # It is waited for here.
        taken = session.metrics.take()
    for done, metrics in taken:
        layers = telemetry.readable(metrics, experiment.where.micro_batches)
        if layers:
            session.journal.write("telemetry", done, **layers)
        scalars = {name: float(value) for name, value in metrics.items() if name in session.scalars}
        session.loss = scalars["loss"]
        if cadence and (done % cadence == 0 or done == last):
            write(session, "train", done, **scalars, learning_rate=float(rate(done - 1)))


def log(session: Session, done: int) -> None:
    """A line for the person who watches."""
    settle(session)
    now, (then, before) = time.monotonic(), session.logged
    tokens = (done - before) * session.experiment.train.batch * session.experiment.train.length
    session.logged = (now, done)
    mark(session, done)
    session.display.step(done)
    last, speed = session.experiment.train.steps, tokens / (now - then)
    session.display.say(f"step {done}/{last}  loss {session.loss:.4f}  {speed:,.0f} tokens/s")
    goodput.write(session.journal, done, session.clock)


def mark(session: Session, done: int) -> None:
    """Notes how long the steps so far have taken, without evaluation, checkpoints and compiling."""
    seconds = session.clock.seconds()
    session.marks.append((done, seconds.get("step", 0.0) + seconds.get("data", 0.0)))


def evaluate(session: Session, done: int, state: State) -> None:
    """Every held-out token once."""
    rows = session.held_out_rows
    settle(session)
    layout = session.setup.call.layout
    with session.clock("evaluate"):
        batches = (feed.global_batch(rows, layout, step) for step in range(rows.steps))
        result = session.evaluate(state.model, state.frozen, batches)
    evaluated(session, done, result)


def evaluated(session: Session, done: int, result: dict[str, float]) -> None:
    """Notes what `session.evaluate` found."""
    if "cross_entropy_total" in result:
        nats = result.pop("cross_entropy_total")
        result["bits_per_byte"] = held_out.bits_per_byte(nats, session.prepared.held_out.bytes)
    result = {name: value for name, value in result.items() if not name.endswith("_total")}
    session.newest = result
    write(session, "evaluate", done, **result)
    shown = "  ".join(f"{name} {value:.4f}" for name, value in result.items())
    session.display.say(f"step {done} held out: {shown}")


def save(session: Session, done: int, state: State) -> None:
    """A checkpoint, if this state is sound: its metrics are looked at first."""
    settle(session)
    with session.clock("checkpoint"):
        session.checkpoints.save(
            done, state.saved(), {"step": done, "rows": session.rows.fingerprint}, session.newest
        )


def write(session: Session, kind: str, done: int, **values: float) -> None:
    """A record in the journal and, where there is one, on TensorBoard."""
    session.journal.write(kind, done, **values)
    if session.tensorboard is not None:
        session.tensorboard(done, {f"{kind}/{name}": value for name, value in values.items()})


def note(session: Session, **entries: Any) -> None:
    """Entries for the manifest of this attempt, from process 0."""
    if jax.process_index() == 0:
        record(session.run, **entries)
