"""A whole run: prepare, train, evaluate, sample, report; run again, it goes on where it was."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlm.cluster.discovery import join
from jaxlm.cluster.together import leaving, together
from jaxlm.config import Experiment
from jaxlm.config.codec import what_hash
from jaxlm.config.errors import AGAIN
from jaxlm.config.objective import columns
from jaxlm.config.sampling import Options, as_trained
from jaxlm.data import rows as row_data
from jaxlm.data.prepare import Prepared, prepare
from jaxlm.data.rows import Rows
from jaxlm.runs import goodput
from jaxlm.runs.directory import Run, finish, is_finished, open_run, record, release, run_path
from jaxlm.runs.files import write_atomically
from jaxlm.runs.journal import Journal, Silent
from jaxlm.runs.plans import Plan
from jaxlm.runs.report import write_report
from jaxlm.runs.tensorboard import open_tensorboard
from jaxlm.sampling.text import sample_with_log_probabilities
from jaxlm.tokenizers.build import keep
from jaxlm.tokenizers.words import begins_word, ends_sentence
from jaxlm.train import feed, held_out, initial, planned
from jaxlm.train.after import refuse_other, state_after
from jaxlm.train.alone import Ask, alone, ask, unasked
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.compile import compiled_steps
from jaxlm.train.fingerprint import digest, fingerprint
from jaxlm.train.interruption import Interruption
from jaxlm.train.likeliest import written_down
from jaxlm.train.loop import Metrics, names_of, run_steps
from jaxlm.train.memory import enough
from jaxlm.train.profile import Profile
from jaxlm.train.progress import Display
from jaxlm.train.session import Session, evaluate, log, mark, save, settle
from jaxlm.train.setup import Setup, cache_directory, check_data, check_teacher, make_setup
from jaxlm.train.state import State


def run(
    experiment: Experiment,
    *,
    run_dir: str | None = None,
    profile: tuple[int, int] | None = None,
    plans: Path | None = None,
    tasks: Ask | None = None,
    after: str | None = None,
) -> int:
    """Train to the end, or until told to stop. Returns the exit code: 0 finished, 75 saved, run me again.

    `plans` is a directory of kept plans: the one of this experiment and these devices is printed beside what is
    measured. `tasks` is asked every `where.every.tasks` steps. `after` is a run whose steps so far are this
    experiment's own: see `train.after`.
    """
    clock = goodput.Clock()
    join()
    with leaving(), Interruption() as interruption:
        if _told(lambda: is_finished(experiment, run_dir)):
            return _nothing_to_do(experiment, run_dir)
        with Display(experiment.train.steps, quiet=jax.process_index() > 0) as display:
            # What can be wrong with a request shows here: the directory is made when work begins.
            setup = make_setup(experiment)
            if after is not None:
                refuse_other(experiment, after)
            plan = planned.find(setup, plans, display.say)
            with clock("data"):
                prepared = _prepare(experiment, display)
            check_data(experiment, (prepared.train, prepared.held_out))
            check_teacher(experiment, prepared.tokenizer)
            with clock("data"), enough(experiment):
                prepared = written_down(setup, prepared, display.say)
            opened = _open(experiment, run_dir)
            if opened.finished:
                return _nothing_to_do(experiment, run_dir)
            try:
                with enough(experiment):
                    return _run(opened, setup, prepared, clock, display, interruption, profile, plan, tasks, after)
            finally:
                release(opened)


def _told(ask: Callable[[], int]) -> int:
    """What process 0 answers, on all processes."""
    answer = together(lambda: 0 if jax.process_index() else int(ask()))
    return answer if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.asarray(answer)))


def _nothing_to_do(experiment: Experiment, run_dir: str | None) -> int:
    path = run_path(experiment, run_dir)
    if jax.process_index() == 0:
        print(f"{path} is finished: jaxlm runs show {path}")
    return 0


def _open(experiment: Experiment, run_dir: str | None) -> Run:
    """Process 0 opens the directory and tells the others which attempt it is."""
    opened: list[Run] = []

    def open_it() -> int:
        opened.append(open_run(experiment, run_dir))
        return -1 if opened[0].finished else opened[0].attempt

    attempt = _told(open_it)
    return opened[0] if opened else Run(run_path(experiment, run_dir), experiment, attempt, finished=attempt < 0)


def _prepare(experiment: Experiment, display: Display) -> Prepared:
    """Process 0 makes what is missing, in the cache that all share; the others read it."""
    first = jax.process_index() == 0

    prepared = together(lambda: prepared_data(experiment, display.say) if first else None)
    return together(lambda: prepared or prepared_data(experiment, display.say))


def prepared_data(experiment: Experiment, say: Callable[[str], None]) -> Prepared:
    """An experiment's data in the cache, made where they are missing; `say` is told of it."""
    size = {"rows": experiment.model.vocab, "length": experiment.train.length}
    return prepare(experiment.data, experiment.tokenizer, cache_directory(), report=say, **size)


def describe(prepared: Prepared, run: Run) -> None:
    """What the run needs to be used without its data, and the facts of that data."""
    keep(prepared.tokenizer, Path(run.path) / "tokenizer")
    facts = {
        "documents": prepared.documents,
        "baselines": prepared.baselines,
        "train_tokens": int(prepared.train.offsets[-1]),
        "train_bytes": prepared.train.bytes,
        "held_out_bytes": prepared.held_out.bytes,
        "held_out_labels": prepared.held_out.classes,
    }
    write_atomically(run.path / "data.json", json.dumps(facts, indent=1) + "\n")


def rows_of(experiment: Experiment, prepared: Prepared) -> tuple[Rows, Rows]:
    """The rows that an experiment trains on, and those that it is evaluated on."""
    size: dict[str, Any] = {"batch": experiment.train.batch, "length": experiment.train.length}
    wanted = columns(experiment.objective)
    if wanted.words:
        size["begins"] = begins_word(prepared.tokenizer)
    if wanted.ends:
        size["ends"] = ends_sentence(prepared.tokenizer)
    train = row_data.training(
        prepared.train, experiment.packing, seed=experiment.train.seed, copies=wanted.copies, **size
    )
    return train, row_data.held_out(prepared.held_out, experiment.packing, **size)


def _run(
    opened: Run,
    setup: Setup,
    prepared: Prepared,
    clock: goodput.Clock,
    display: Display,
    interruption: Interruption,
    profile: tuple[int, int] | None,
    plan: Plan | None,
    tasks: Ask | None,
    after: str | None,
) -> int:
    experiment = opened.experiment
    display.say(f"run {opened.path} (attempt {opened.attempt})")
    together(lambda: None if jax.process_index() else describe(prepared, opened))
    train_rows, held_out_rows = rows_of(experiment, prepared)
    with Checkpoints(os.path.join(opened.path, "checkpoints"), config=what_hash(experiment)) as checkpoints:
        with clock("checkpoint"):
            restored = initial.restored(setup, checkpoints)
        for line in checkpoints.damaged:
            display.say(line)
        with clock("compile"):
            if restored is not None:
                first, state = restored[:2]
            elif after is not None:
                first, state = state_after(setup, after, train_rows.fingerprint)
                display.say(f"goes on after step {first} of {after}")
                if jax.process_index() == 0:
                    record(opened, after={"run": after, "step": first})
            else:
                first, state = 0, initial.initial_state(setup)
        with _journal(opened, first) as journal:
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
                held_out_rows=held_out_rows,
                tensorboard=open_tensorboard(opened.path, display.say) if jax.process_index() == 0 else None,
                evaluate=held_out.make_evaluate(setup.asked, setup.call),
                plan=plan,
                tasks=tasks,
            )
            if restored is not None:
                display.say(f"resumed at step {first}")
                if _told(lambda: unasked(session, first)):
                    ask(session, first, state)
            return _train(session, state, first, interruption, profile)


def _journal(run: Run, first: int) -> Journal | Silent:
    if jax.process_index():
        return Silent()
    return Journal(run.path, run.attempt, resumed_from=first if run.resumed or first else None)


def _train(
    session: Session, state: State, first: int, interruption: Interruption, profile: tuple[int, int] | None
) -> int:
    experiment, last = session.experiment, session.experiment.train.steps
    every = experiment.where.every
    step = compiled_steps(session)

    def greet(done: int, state: State) -> None:
        """Whoever waits sees the first step."""
        if done == first + 1 < last and done % every.log:
            log(session, done)

    actions = (
        (min(every.log, 1), greet),
        (every.log, lambda done, state: log(session, done)),
        (every.telemetry, lambda done, state: settle(session)),
        (every.evaluate, lambda done, state: evaluate(session, done, state)),
        (every.checkpoint, lambda done, state: save(session, done, state)),
        # Last: whatever becomes of them, the steps are kept.
        (every.tasks, lambda done, state: ask(session, done, state)),
    )
    batches = feed.Prefetched(lambda step: feed.global_batch(session.rows, session.setup.call.layout, step))
    session.logged = (time.monotonic(), first)
    mark(session, first)
    try:
        interruption.training = True
        with Profile(session.run.path, profile) as profiled:
            state, done = run_steps(
                profiled.wrap(step),
                state,
                batches,
                first=first,
                last=last,
                metrics=session.metrics,
                actions=actions,
                interrupted=interruption,
                clock=session.clock,
            )
    finally:
        batches.close()
    settle(session)
    planned.compare(session)
    if done < last:
        save(session, done, state)
        session.checkpoints.wait()
        goodput.write(session.journal, done, session.clock)
        session.display.say(f"stopped at step {done} and saved: run the same command again to go on")
        return AGAIN
    return conclude(session, done, state)


def conclude(session: Session, done: int, state: State) -> int:
    """What comes after the last step; all of it can be done again after a kill."""
    if not session.newest:
        evaluate(session, done, state)
    save(session, done, state)
    with session.clock("checkpoint"):
        session.checkpoints.wait()
    final = {"parameters": digest(fingerprint(state.model)), "state": digest(fingerprint(state.saved()))}
    _sample(session, state)
    goodput.write(session.journal, done, session.clock)
    session.journal.flush()
    if jax.process_index() == 0:
        record(session.run, **final)
        report = write_report(session.run.path)
        finish(session.run)
        session.display.say(f"finished: {report}")
    return 0


def _sample(session: Session, state: State) -> None:
    """Text from the trained model with the log-probability of every token, in samples.json."""
    samples = session.experiment.samples
    if not samples.prompts:
        return
    held = alone(session, state)
    if held is None:
        return
    model, call = held
    experiment = session.experiment
    options = as_trained(Options(samples.tokens, samples.temperature, seed=experiment.train.seed), experiment)
    # Float32, so that whoever reads a text again finds the same log-probabilities.
    precision = dataclasses.replace(call.precision, compute="float32", logits="float32")
    call = dataclasses.replace(call, precision=precision)
    tokenizer = session.prepared.tokenizer
    drawn = sample_with_log_probabilities(model, tokenizer, samples.prompts, options, call)
    text = json.dumps([sample.as_json(tokenizer) for sample in drawn], indent=1, ensure_ascii=False)
    write_atomically(session.run.path / "samples.json", text + "\n")
    for sample in drawn:
        session.display.say(f"sample: {sample.prompt + sample.text!r}")
