"""Runs that differ in seed and numbers alone, trained by one program; each leaves a run directory of its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
from etils import epath

from jaxlm.config import Experiment, Mesh
from jaxlm.config.codec import what_hash
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.objective import columns
from jaxlm.data.prepare import Prepared
from jaxlm.layers.names import flatten
from jaxlm.runs import goodput
from jaxlm.runs.directory import Run, is_finished, open_run, release, run_path
from jaxlm.runs.journal import Journal, read_metrics
from jaxlm.runs.tensorboard import open_tensorboard
from jaxlm.study import programs
from jaxlm.study.lanes import Lanes
from jaxlm.study.variation import SEED, varied
from jaxlm.train import feed, held_out, initial
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.likeliest import written_down
from jaxlm.train.loop import Metrics, names_of, run_steps
from jaxlm.train.run import conclude, describe, rows_of
from jaxlm.train.session import Session, evaluated, note, save, settle
from jaxlm.train.setup import Setup, check_data, make_setup
from jaxlm.train.state import State

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What became of a run: "stopped" is saved and goes on when it is asked for again, "failed" says why."""

    path: epath.Path
    status: Literal["finished", "failed", "stopped"]
    why: str = ""

    @property
    def losses(self) -> dict[int, float]:
        """The training loss by steps taken, as often as `where.every.log`."""
        return {one["step"]: one["loss"] for one in read_metrics(self.path, ("train",)) if one["kind"] == "train"}

    @property
    def evaluations(self) -> dict[int, dict[str, Any]]:
        """What each held-out evaluation found, by steps taken."""
        return {
            one["step"]: {name: value for name, value in one.items() if name not in ("kind", "attempt", "time")}
            for one in read_metrics(self.path, ("evaluate",))
            if one["kind"] == "evaluate"
        }


@dataclass(frozen=True)
class Voice:
    """Where a run of several says what it has to say."""

    say_line: Say
    name: str

    def say(self, line: str) -> None:
        """A line, and whose it is."""
        self.say_line(f"{self.name}: {line}")

    def step(self, done: int) -> None:
        """Nothing: there is a line for all."""


@dataclass
class Group:
    """Runs that one program trains from the same step on."""

    sessions: list[Session]
    lanes: Lanes
    shared: bool
    """Whether all see the same batches: their seeds are one."""
    names: tuple[str, ...]
    """The numbers in which they differ."""
    numbers: programs.Numbers
    say: Say
    clock: goodput.Clock
    metrics: Metrics
    evaluation: Callable | None = None
    failed: dict[int, str] = field(default_factory=dict)
    """Why, by place in `sessions`."""
    logged: tuple[float, int] = (0.0, 0)

    @property
    def setup(self) -> Setup:
        """That of the first, for what all have alike."""
        return self.sessions[0].setup

    @property
    def going(self) -> list[tuple[int, Session]]:
        """The runs that have not failed, and their places."""
        return [(i, session) for i, session in enumerate(self.sessions) if i not in self.failed]


def train_together(
    experiments: Sequence[Experiment],
    run_dirs: Sequence[str | os.PathLike],
    prepared: Prepared,
    say: Say = print,
    *,
    interrupted: Callable[[int], bool] = lambda done: False,
    devices: Sequence[jax.Device] | None = None,
    batched: bool | None = None,
) -> list[Result]:
    """Train runs that differ in `train.seed`, in numbers of optimizer and objective, and in the run that they start
    from, all in one program.

    Each leaves what `jaxlm run` leaves. Those that are finished are not touched; others go on from their newest
    checkpoints, in a program for each step at which some stopped. A run whose gradient is not finite fails alone.
    `interrupted(steps taken)` is asked after each step: once true, all are saved, and runs are "stopped". Runs are
    shared out over `devices` (all of this process), each whole on one; see `Lanes` for `batched`.
    Raises UsageError for experiments that differ in anything else, and for what a single run is refused for.
    """
    paths = [run_path(one, os.fspath(where)) for one, where in zip(experiments, run_dirs, strict=True)]
    names = varied(experiments)
    devices = tuple(jax.local_devices() if devices is None else devices)
    _refuse(experiments, paths)
    done = [is_finished(one, os.fspath(path)) for one, path in zip(experiments, paths)]
    results = {i: Result(path, "finished") for i, path in enumerate(paths) if done[i]}
    left = [i for i in range(len(paths)) if i not in results]
    setups = {i: make_setup(experiments[i], devices[:1]) for i in left}
    _refuse_shapes([setups[i] for i in left])
    if left:
        check_data(experiments[left[0]], (prepared.train, prepared.held_out))
        prepared = written_down(setups[left[0]], prepared, say)
    with contextlib.ExitStack() as stack:
        clock = goodput.Clock()
        opened = {i: _opened(stack, setups[i], paths[i], prepared, Voice(say, paths[i].name), clock) for i in left}
        for first in sorted({one.first for one in opened.values()}):
            some = [i for i in left if opened[i].first == first]
            found = _train(
                [opened[i].session(stack) for i in some],
                [opened[i].state for i in some],
                (first, names),
                Lanes.of(len(some), devices, batched),
                (say, clock, interrupted),
            )
            results |= dict(zip(some, found))
    return [results[i] for i in range(len(paths))]


# --- refusals ----------------------------------------------------------------------------------------------


def _refuse(experiments: Sequence[Experiment], paths: Sequence[epath.Path]) -> None:
    where = experiments[0].where
    if jax.process_count() > 1:
        raise UsageError("runs of one program belong to one process: start a process for each part of them")
    if where.mesh not in (Mesh(), Mesh(data=1)):
        raise UsageError("where.mesh: each run of one program is whole on a device; leave the mesh as it is")
    if where.every.telemetry:
        raise UsageError(f"where.every.telemetry={where.every.telemetry}: runs of one program write none; use 0")
    if where.tasks:
        raise UsageError(f"where.tasks={where.tasks}: runs of one program are asked none; leave them out")
    same = [path for i, path in enumerate(paths) if path in paths[:i]]
    if same:
        raise UsageError(f"{same[0]} is the directory of two runs: give each its own")
    if len({columns(one.objective) for one in experiments}) > 1:
        raise UsageError("objective: the runs want different columns of their rows, and have no program in common")


def _refuse_shapes(setups: Sequence[Setup]) -> None:
    """A number can decide what an optimizer keeps."""
    for other in setups[1:]:
        here, there = (
            {name: (leaf.shape, leaf.dtype) for name, leaf in flatten(setup.abstract).items()}
            for setup in (setups[0], other)
        )
        if here != there:
            odd = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
            raise UsageError(
                f"{setups[0].experiment.name} and {other.experiment.name} differ in a number that decides what the "
                f"state holds ({odd[0]}): train them one after the other"
            )


# --- a run's own -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """A run directory that is held, and the newest state in it."""

    run: Run
    setup: Setup
    prepared: Prepared
    checkpoints: Checkpoints
    voice: Voice
    clock: goodput.Clock
    first: int
    state: State | None

    def session(self, stack: contextlib.ExitStack) -> Session:
        """What a run of its own has, journal and all."""
        rows, held_out_rows = rows_of(self.setup.experiment, self.prepared)
        journal = Journal(self.run.path, self.run.attempt, resumed_from=self.first if self.run.resumed else None)
        return Session(
            run=self.run,
            setup=self.setup,
            prepared=self.prepared,
            checkpoints=self.checkpoints,
            journal=stack.enter_context(journal),
            clock=self.clock,
            display=self.voice,
            metrics=Metrics(names_of(self.setup.abstract)),
            rows=rows,
            held_out_rows=held_out_rows,
            tensorboard=open_tensorboard(self.run.path, self.voice.say),
        )


def _opened(
    stack: contextlib.ExitStack,
    setup: Setup,
    path: epath.Path,
    prepared: Prepared,
    voice: Voice,
    clock: goodput.Clock,
) -> Opened:
    """Raises UsageError and Failure as `open_run` and `Checkpoints` do."""
    run = open_run(setup.experiment, os.fspath(path))
    stack.callback(release, run)
    describe(prepared, run)
    kept = Checkpoints(os.path.join(run.path, "checkpoints"), config=what_hash(setup.experiment))
    checkpoints = stack.enter_context(kept)
    with clock("checkpoint"):
        restored = initial.restored(setup, checkpoints)
    for line in checkpoints.damaged:
        voice.say(line)
    first, state = (0, None) if restored is None else restored[:2]
    if restored is not None:
        voice.say(f"resumed at step {first}")
    return Opened(run, setup, prepared, checkpoints, voice, clock, first, state)


# --- training ----------------------------------------------------------------------------------------------


def _train(
    sessions: list[Session],
    states: list[State | None],
    begin: tuple[int, tuple[str, ...]],
    lanes: Lanes,
    around: tuple[Say, goodput.Clock, Callable[[int], bool]],
) -> list[Result]:
    (first, names), (say, clock, interrupted) = begin, around
    experiment = sessions[0].experiment
    every, last = experiment.where.every, experiment.train.steps
    shared = SEED not in names or len(sessions) == 1
    with clock("compile"):
        if any(state is None for state in states):
            states = list(initial.initial_states([session.setup for session in sessions]))
        state = lanes.stack(states)
        numbers = lanes.stack([programs.numbers(session.experiment, names) for session in sessions])
    group = Group(sessions, lanes, shared, names, numbers, say, clock, Metrics(()))
    read = programs.batches(lanes, [session.rows for session in sessions], shared=shared)
    step = _compiled(group, state, read(first))
    actions = (
        (every.log, lambda done, state: _log(group, done)),
        (every.evaluate, lambda done, state: _evaluate(group, done, state)),
        (every.checkpoint, lambda done, state: _save(group, done, state)),
    )
    prefetched = feed.Prefetched(read)
    group.logged = (time.monotonic(), first)
    try:
        state, done = run_steps(
            lambda index: step,
            state,
            prefetched,
            first=first,
            last=last,
            metrics=group.metrics,
            actions=actions,
            interrupted=lambda done: interrupted(done) or not group.going,
            clock=clock,
        )
    finally:
        prefetched.close()
    _settle(group)
    return _end(group, done, state)


def _compiled(group: Group, state: State, batch: Any) -> Callable:
    session, lanes = group.sessions[0], group.lanes
    with group.clock("compile"):
        step, text = programs.compiled_step(group.setup, lanes, group.numbers, state, batch, shared=group.shared)
    for session in group.sessions:
        note(
            session,
            data=session.rows.fingerprint,
            tokenizer=session.prepared.tokenizer.fingerprint,
            devices=[device.device_kind for device in lanes.devices],
            compiler_options=group.setup.options,
            lowered_step=hashlib.sha256(text.encode()).hexdigest(),
            together={"runs": lanes.count, "batched": lanes.batched, "numbers": list(group.names)},
        )
    return step


def _settle(group: Group) -> None:
    """Each run looks at its metrics so far; one that is not finite fails."""
    with group.clock("step"):
        waiting = [(done, group.lanes.split(measured)) for done, measured in group.metrics.waiting]
    group.metrics.waiting = []
    for i, session in group.going:
        session.metrics.waiting = [(done, measured[i]) for done, measured in waiting]
        try:
            settle(session)
        except Failure as failure:
            group.failed[i] = str(failure)
            session.display.say(f"failed: {failure}")


def _log(group: Group, done: int) -> None:
    """A line for the person who watches."""
    _settle(group)
    now, (then, before) = time.monotonic(), group.logged
    group.logged = (now, done)
    train, losses = group.setup.experiment.train, [session.loss for _, session in group.going]
    speed = len(losses) * (done - before) * train.batch * train.length / (now - then)
    for _, session in group.going:
        goodput.write(session.journal, done, group.clock)
    if losses:
        told = f"loss {min(losses):.4f} to {max(losses):.4f} in {len(losses)} runs"
        group.say(f"step {done}/{train.steps}  {told}  {speed:,.0f} tokens/s")


def _evaluate(group: Group, done: int, state: State) -> None:
    """Every held-out token once, by all runs."""
    _settle(group)
    lanes, rows = group.lanes, group.sessions[0].held_out_rows
    measured = []
    with group.clock("evaluate"):
        for step in range(rows.steps):
            batch = lanes.share(feed.as_batch(rows.batch(step)))
            if group.evaluation is None:
                sums = lanes.map(programs.evaluation_of(group.setup), shared=True)
                group.evaluation = jax.jit(sums).lower(group.numbers, state, batch).compile()
            measured.append(lanes.split(group.evaluation(group.numbers, state, batch)))
    for i, session in group.going:
        evaluated(session, done, held_out.means(session.setup.asked, [one[i] for one in measured]))


def _own(group: Group, state: State) -> list[State]:
    """The state of each run where a run of its own has it."""

    def place(leaf: Any, abstract: Any) -> jax.Array:
        return jax.device_put(leaf, abstract.sharding)

    return [jax.tree.map(place, one, group.setup.abstract) for one in group.lanes.split(state)]


def _save(group: Group, done: int, state: State) -> None:
    """A checkpoint of each run whose state is sound."""
    _settle(group)
    states = _own(group, state)
    for i, session in group.going:
        save(session, done, states[i])


def _end(group: Group, done: int, state: State) -> list[Result]:
    """What comes after the last step, or after the one at which all were told to stop."""
    last = group.setup.experiment.train.steps
    if done == last and not all(session.newest for _, session in group.going):
        _evaluate(group, done, state)
    states = _own(group, state)
    results = []
    for i, session in enumerate(group.sessions):
        path = session.run.path
        if i in group.failed:
            results.append(Result(path, "failed", group.failed[i]))
        elif done == last:
            conclude(session, done, states[i])
            results.append(Result(path, "finished"))
        else:
            save(session, done, states[i])
            session.checkpoints.wait()
            goodput.write(session.journal, done, group.clock)
            results.append(Result(path, "stopped"))
    return results
