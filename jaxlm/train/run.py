"""A whole run: prepare, train, evaluate, sample, report; run again, it goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxlm.config import Experiment
from jaxlm.config.codec import what_hash
from jaxlm.config.errors import UsageError
from jaxlm.data import rows as row_data
from jaxlm.data.prepare import Prepared, prepare
from jaxlm.layers.contracts import Batch
from jaxlm.runs import goodput
from jaxlm.runs.directory import Run, finish, open_run, record, release
from jaxlm.runs.files import write_atomically
from jaxlm.runs.journal import Journal
from jaxlm.runs.report import write_report
from jaxlm.runs.tensorboard import open_tensorboard
from jaxlm.sampling.text import sample_with_log_probabilities
from jaxlm.tokenizers.build import keep
from jaxlm.train import feed, held_out, optimizers, telemetry
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.fingerprint import digest, fingerprint
from jaxlm.train.loop import Metrics, interruption, names_of, run_steps
from jaxlm.train.progress import Display
from jaxlm.train.setup import Setup, cache_directory, initial_state, make_setup
from jaxlm.train.state import State
from jaxlm.train.step import make_step

AGAIN = 75
"""Exit code: saved, run me again."""


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
    rows: row_data.Rows
    held_out_rows: row_data.Rows
    tensorboard: Any = None
    logged: tuple[float, int] = (0.0, 0)
    """Time and step of the last logged line."""
    evaluate: Callable | None = None
    newest: dict[str, float] = field(default_factory=dict)
    """The newest evaluation."""

    @property
    def experiment(self) -> Experiment:
        """What is computed."""
        return self.setup.experiment


def run(experiment: Experiment, *, run_dir: str | None = None, profile: tuple[int, int] | None = None) -> int:
    """Train to the end, or until told to stop. Returns the exit code: 0 finished, 75 saved, run me again."""
    clock = goodput.Clock()
    opened = open_run(experiment, run_dir)
    if opened.finished:
        print(f"{opened.path} is finished: jaxlm runs show {opened.path}")
        return 0
    try:
        with Display(experiment.train.steps, quiet=jax.process_index() > 0) as display:
            return _run(opened, clock, display, profile)
    finally:
        release(opened)


def _run(opened: Run, clock: goodput.Clock, display: Display, profile: tuple[int, int] | None) -> int:
    experiment = opened.experiment
    display.say(f"run {opened.path} (attempt {opened.attempt})")
    setup = make_setup(experiment)
    with clock("data"):
        prepared = prepare(experiment.data, experiment.tokenizer, cache_directory(), report=display.say)
        _check_vocabulary(experiment, prepared)
        keep(prepared.tokenizer, os.path.join(opened.path, "tokenizer"))
    size = {"batch": experiment.train.batch, "length": experiment.train.length}
    train_rows = row_data.training(prepared.train, experiment.packing, seed=experiment.train.seed, **size)
    with Checkpoints(os.path.join(opened.path, "checkpoints"), config=what_hash(experiment)) as checkpoints:
        with clock("checkpoint"):
            restored = checkpoints.restore(setup.abstract)
        for line in checkpoints.damaged:
            display.say(line)
        first, state = (0, initial_state(setup)) if restored is None else restored[:2]
        with Journal(opened.path, opened.attempt, resumed_from=first if opened.resumed else None) as journal:
            session = Session(
                run=opened,
                setup=setup,
                prepared=prepared,
                checkpoints=checkpoints,
                journal=journal,
                clock=clock,
                display=display,
                metrics=Metrics(names_of(state)),
                rows=train_rows,
                held_out_rows=row_data.held_out(prepared.held_out, experiment.packing, **size),
                tensorboard=open_tensorboard(opened.path, display.say),
                evaluate=held_out.make_evaluate(setup.objective, setup.call),
            )
            if restored is not None:
                display.say(f"resumed at step {first}")
            return _train(session, state, first, profile)


def _train(session: Session, state: State, first: int, profile: tuple[int, int] | None) -> int:
    experiment, last = session.experiment, session.experiment.train.steps
    every = experiment.where.every
    step = _compiled_steps(session, state)
    actions = (
        (every.log, lambda done, state: _log(session, done)),
        (every.telemetry, lambda done, state: _settle(session)),
        (every.evaluate, lambda done, state: _evaluate(session, done, state)),
        (every.checkpoint, lambda done, state: _save(session, done, state)),
    )
    batches = feed.Prefetched(lambda step: feed.global_batch(session.rows, session.setup.call.layout, step))
    session.logged = (time.monotonic(), first)
    try:
        with interruption() as interrupted, _Profile(session.run.path, profile) as profiled:
            state, done = run_steps(
                profiled.wrap(step),
                state,
                batches,
                first=first,
                last=last,
                metrics=session.metrics,
                actions=actions,
                interrupted=interrupted,
                clock=session.clock,
            )
    finally:
        batches.close()
    _settle(session)
    if done < last:
        _save(session, done, state)
        session.checkpoints.wait()
        goodput.write(session.journal, done, session.clock)
        session.display.say(f"stopped at step {done} and saved: run the same command again to go on")
        return AGAIN
    return _finish(session, done, state)


def _finish(session: Session, done: int, state: State) -> int:
    """What comes after the last step; all of it can be done again after a kill."""
    if not session.newest:
        _evaluate(session, done, state)
    _save(session, done, state)
    with session.clock("checkpoint"):
        session.checkpoints.wait()
    _sample(session, state)
    record(session.run, parameters=digest(fingerprint(state.model)), data_steps=done)
    goodput.write(session.journal, done, session.clock)
    session.journal.flush()
    report = write_report(session.run.path)
    finish(session.run)
    session.display.say(f"finished: {report}")
    return 0


# --- compiling -----------------------------------------------------------------------------------------------


def _compiled_steps(session: Session, state: State) -> Callable[[int], Callable]:
    """step(index): the plain step, or at its cadence the one with telemetry, compiled when first needed."""
    setup, experiment = session.setup, session.experiment
    batch = feed.abstract_batch(session.rows, setup.call.layout)
    places = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract)

    def compiled(call: Any, **options: Any) -> Callable:
        function = make_step(
            setup.objective,
            setup.optimizer,
            call,
            seed=experiment.train.seed,
            micro_batches=experiment.where.micro_batches,
            clip=experiment.train.clip,
            ema=experiment.train.ema,
            **options,
        )
        with session.clock("compile"):
            lowered = jax.jit(function, donate_argnums=0, out_shardings=(places, None)).lower(setup.abstract, batch)
            record(session.run, lowered_step=hashlib.sha256(lowered.as_text().encode()).hexdigest())
            return lowered.compile()

    import dataclasses

    cadence, cache = experiment.where.every.telemetry, {}
    plain = compiled(setup.call)
    mesh = setup.call.layout.mesh
    record(
        session.run,
        data=session.rows.fingerprint,
        tokenizer=session.prepared.tokenizer.fingerprint,
        devices=[device.device_kind for device in mesh.devices.flat],
        mesh=dict(mesh.shape),
    )

    def step(index: int) -> Callable:
        if not cadence or (index + 1) % cadence:
            return plain
        if "observed" not in cache:
            call = dataclasses.replace(setup.call, taps=telemetry.TAPS)
            cache["observed"] = compiled(call, observe=telemetry.observe)
        return cache["observed"]

    return step


# --- what happens at its cadence -----------------------------------------------------------------------------


def _settle(session: Session) -> None:
    """Look at all metrics so far: journal them, and stop if one is not finite."""
    rate = optimizers.learning_rate(session.experiment.optimizer, session.experiment.train.steps)
    cadence = session.experiment.where.every.log
    for done, metrics in session.metrics.take():
        scalars = {name: float(value) for name, value in metrics.items() if value.ndim == 0}
        scalars = {name: value for name, value in scalars.items() if "." not in name and name != "first_bad_leaf"}
        if cadence and (done % cadence == 0 or done == session.experiment.train.steps):
            _write(session, "train", done, **scalars, learning_rate=float(rate(done - 1)))
        layers = telemetry.readable(metrics, session.experiment.where.micro_batches)
        if layers:
            session.journal.write("telemetry", done, **layers)


def _log(session: Session, done: int) -> None:
    loss = float(jax.device_get(session.metrics.waiting[-1][1]["loss"])) if session.metrics.waiting else math.nan
    _settle(session)
    now = time.monotonic()
    then, before = session.logged
    tokens = (done - before) * session.experiment.train.batch * session.experiment.train.length
    speed = tokens / (now - then)
    session.logged = (now, done)
    session.display.step(done)
    session.display.say(f"step {done}/{session.experiment.train.steps}  loss {loss:.4f}  {speed:,.0f} tokens/s")
    goodput.write(session.journal, done, session.clock)


def _evaluate(session: Session, done: int, state: State) -> None:
    rows = session.held_out_rows
    _settle(session)
    layout = session.setup.call.layout
    with session.clock("evaluate"):
        batches = (feed.global_batch(rows, layout, step) for step in range(rows.steps))
        result = session.evaluate(state.model, state.frozen, batches)
    if "cross_entropy_total" in result:
        nats = result.pop("cross_entropy_total")
        result["bits_per_byte"] = held_out.bits_per_byte(nats, session.prepared.held_out.bytes)
    result = {name: value for name, value in result.items() if not name.endswith("_total")}
    session.newest = result
    _write(session, "evaluate", done, **result)
    shown = "  ".join(f"{name} {value:.4f}" for name, value in result.items())
    session.display.say(f"step {done} held out: {shown}")


def _save(session: Session, done: int, state: State) -> None:
    """A checkpoint, if this state is sound: its metrics are looked at first."""
    _settle(session)
    with session.clock("checkpoint"):
        session.checkpoints.save(done, state, {"step": done, "rows": session.rows.fingerprint}, session.newest)


def _write(session: Session, kind: str, done: int, **values: float) -> None:
    session.journal.write(kind, done, **values)
    if session.tensorboard is not None:
        session.tensorboard(done, {f"{kind}/{name}": value for name, value in values.items()})


def _sample(session: Session, state: State) -> None:
    """Text from the trained model with the log-probability of every token, in samples.json."""
    samples, setup = session.experiment.samples, session.setup
    if not samples.prompts:
        return
    drawn = sample_with_log_probabilities(
        state.whole(),
        session.prepared.tokenizer,
        samples.prompts,
        tokens=samples.tokens,
        temperature=samples.temperature,
        seed=session.experiment.train.seed,
        call=setup.call,
    )
    text = json.dumps([sample.as_dict() for sample in drawn], indent=1, ensure_ascii=False)
    write_atomically(session.run.path / "samples.json", text + "\n")
    for sample in drawn:
        session.display.say(f"sample: {sample.text!r}")


def _check_vocabulary(experiment: Experiment, prepared: Prepared) -> None:
    vocab = prepared.tokenizer.vocab
    if vocab > experiment.model.vocab:
        raise UsageError(f"the tokenizer has {vocab} tokens, model.vocab={experiment.model.vocab} rows: raise model.vocab")


class _Profile:
    """Traces steps A to B with jax's profiler, into the run's directory `profile`."""

    def __init__(self, path: Any, steps: tuple[int, int] | None):
        self._path, self._steps, self._tracing = os.path.join(path, "profile"), steps, False

    def __enter__(self) -> _Profile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tracing:
            jax.profiler.stop_trace()

    def wrap(self, step: Callable[[int], Callable[[State, Batch], Any]]) -> Callable[[int], Callable]:
        """The same steps, the trace started before A and stopped before B."""
        if self._steps is None:
            return step
        first, last = self._steps

        def traced(index: int) -> Callable[[State, Batch], Any]:
            if index == first and not self._tracing:
                jax.profiler.start_trace(self._path)
                self._tracing = True
            if index == last and self._tracing:
                jax.profiler.stop_trace()
                self._tracing = False
            return step(index)

        return traced
