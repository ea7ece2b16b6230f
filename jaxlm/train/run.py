"""A whole run: prepare, train, evaluate, sample, report; run again, it goes on where it was."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import jax

from jaxlm.config import Experiment
from jaxlm.config.codec import what_hash
from jaxlm.config.errors import UsageError
from jaxlm.data import rows as row_data
from jaxlm.data.prepare import Prepared, prepare
from jaxlm.runs import goodput
from jaxlm.runs.directory import Run, finish, open_run, record, release
from jaxlm.runs.files import write_atomically
from jaxlm.runs.journal import Journal
from jaxlm.runs.report import write_report
from jaxlm.runs.tensorboard import open_tensorboard
from jaxlm.sampling.text import sample_with_log_probabilities
from jaxlm.tokenizers.build import keep
from jaxlm.train import feed, held_out
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.compile import compiled_steps
from jaxlm.train.fingerprint import digest, fingerprint
from jaxlm.train.loop import Metrics, interruption, names_of, run_steps
from jaxlm.train.profile import Profile
from jaxlm.train.progress import Display
from jaxlm.train.session import Session, evaluate, log, save, settle
from jaxlm.train.setup import cache_directory, initial_state, make_setup
from jaxlm.train.state import State

AGAIN = 75
"""Exit code: saved, run me again."""


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
        keep(prepared.tokenizer, Path(opened.path) / "tokenizer")
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
    step = compiled_steps(session)
    actions = (
        (every.log, lambda done, state: log(session, done)),
        (every.telemetry, lambda done, state: settle(session)),
        (every.evaluate, lambda done, state: evaluate(session, done, state)),
        (every.checkpoint, lambda done, state: save(session, done, state)),
    )
    batches = feed.Prefetched(lambda step: feed.global_batch(session.rows, session.setup.call.layout, step))
    session.logged = (time.monotonic(), first)
    try:
        with interruption() as interrupted, Profile(session.run.path, profile) as profiled:
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
    settle(session)
    if done < last:
        save(session, done, state)
        session.checkpoints.wait()
        goodput.write(session.journal, done, session.clock)
        session.display.say(f"stopped at step {done} and saved: run the same command again to go on")
        return AGAIN
    return _finish(session, done, state)


def _finish(session: Session, done: int, state: State) -> int:
    """What comes after the last step; all of it can be done again after a kill."""
    if not session.newest:
        evaluate(session, done, state)
    save(session, done, state)
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
        raise UsageError(
            f"the tokenizer has {vocab} tokens, model.vocab={experiment.model.vocab} rows: raise model.vocab"
        )
