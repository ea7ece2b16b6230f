"""The state before the first step, and after a restart: where parameters begin.

A run's checkpoints hold what it trains. What it does not is made again from where it began: the other half of an
adapted model from the run that it adapts, the teacher from the teacher's run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from jaxlm.config import Experiment, Precision
from jaxlm.config.codec import named
from jaxlm.config.objective import asks_teacher
from jaxlm.layers import random
from jaxlm.layers.names import combine
from jaxlm.runs.directory import read_experiment
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.models import base_of, beside, compiled_once, drawn, find_base, halves, refuse_rounded, whole_model
from jaxlm.train.state import State

if TYPE_CHECKING:
    from jaxlm.train.setup import Setup


def abstract_state(experiment: Experiment, optimizer: optax.GradientTransformation, precision: Precision) -> State:
    """Shapes and dtypes of the state before the first step, the teacher's included.

    Raises UsageError where the initial run's numbers are rounded otherwise.
    """
    run, _ = named(experiment.initial)
    if run:
        refuse_rounded(experiment, read_experiment(run), run)

    def make() -> State:
        return _state(experiment, optimizer, drawn(experiment, precision), precision)

    state = jax.eval_shape(make)
    run, _ = named(experiment.teacher)
    if not run or not asks_teacher(experiment.objective):
        return state
    theirs = read_experiment(run)
    hers = jax.eval_shape(lambda: combine(*halves(theirs, drawn(theirs, precision))))
    return dataclasses.replace(state, frozen=state.frozen | {"teacher": hers})


def _state(
    experiment: Experiment,
    optimizer: optax.GradientTransformation,
    base: Any,
    precision: Precision,
    seed: Int[Array, ""] | int | None = None,
) -> State:
    own, rest = beside(experiment, *halves(experiment, base, seed), precision, seed)
    ema = None if experiment.train.ema is None else jax.tree.map(jnp.copy, own)
    return State(jnp.zeros((), jnp.int32), own, {"model": rest}, optimizer.init(own), ema)


def initial_state(setup: Setup) -> State:
    """The state before the first step, each leaf made where it lives.

    `initial` replaces the parameters, but for a classifier that its model does not have, which begins anew.
    """
    return next(initial_states([setup]))


def initial_states(setups: Sequence[Setup]) -> Iterator[State]:
    """The same of experiments that differ in `train.seed`, or in the run that they start from, by one program."""
    first = setups[0]
    experiment, precision = first.experiment, first.call.precision
    places = jax.tree.map(lambda leaf: leaf.sharding, first.abstract)
    frozen = {role: model for role, model in places.frozen.items() if role == "model"}
    frozen_too = {"teacher": teacher(first)} if "teacher" in first.abstract.frozen else {}

    def make(seed: Int[Array, ""], base: Any) -> State:
        base = drawn(experiment, precision, seed) if base is None else base
        return _state(experiment, first.optimizer, base, precision, seed)

    program = None
    for setup in setups:
        seed = jnp.asarray(random.low_bits(setup.experiment.train.seed))
        base = base_of(setup.experiment, setup.call.layout, precision) if experiment.initial else None
        if program is None:
            program = compiled_once(make, dataclasses.replace(places, frozen=frozen), seed, base)
        state = program(seed, base)
        yield dataclasses.replace(state, frozen=state.frozen | frozen_too)


def teacher(setup: Setup) -> Any:
    """The model that the experiment's teacher is. Raises as `whole_model`."""
    run, digest = named(setup.experiment.teacher)
    theirs = find_base(run, read_experiment(run))
    return whole_model(run, theirs, setup.call.layout, setup.call.precision, digest)


def restored(setup: Setup, checkpoints: Checkpoints) -> tuple[int, State, dict] | None:
    """(step, state, data) of the newest checkpoint that is whole; None where there is none. Raises as `restore`."""
    found = checkpoints.restore(setup.abstract.saved())
    if found is None:
        return None
    step, state, data = found
    return step, dataclasses.replace(state, frozen=_frozen(setup)), data


def _frozen(setup: Setup) -> dict[str, Any]:
    """What is not trained, made again from where it began."""
    if not jax.tree.leaves(setup.abstract.frozen):
        return setup.abstract.frozen
    return initial_state(setup).frozen
