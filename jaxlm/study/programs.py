"""The step and the evaluation of runs that differ in numbers alone, each as one program."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Array, Num

from jaxlm.cluster import together
from jaxlm.config import Experiment
from jaxlm.config.errors import UsageError
from jaxlm.config.overrides import replace_at
from jaxlm.config.parametrization import times_base
from jaxlm.data.rows import Rows
from jaxlm.distill.objective import asked
from jaxlm.layers.contracts import Batch
from jaxlm.layers.random import low_bits
from jaxlm.study.lanes import Lanes
from jaxlm.study.variation import SEED, at
from jaxlm.train import optimizers
from jaxlm.train.feed import as_batch
from jaxlm.train.held_out import Measured, make_sums
from jaxlm.train.setup import Setup, make_objective
from jaxlm.train.state import State
from jaxlm.train.step import Metrics, make_step

Numbers = dict[str, Num[Array, ""]]
"""What a run's program is given of its experiment, by dotted path."""

DECIDED = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)
"""What jax raises where a program hangs on the value of a number that it is given."""


def numbers(experiment: Experiment, names: Sequence[str]) -> Numbers:
    """The fields of an experiment as its program is given them."""
    return {
        name: low_bits(value) if name == SEED else np.float32(value)
        for name, value in ((name, at(experiment, name)) for name in names)
    }


def given(experiment: Experiment, numbers: Numbers) -> Experiment:
    """The experiment with (traced) numbers in place of its own."""
    for name, value in numbers.items():
        experiment = replace_at(experiment, name, value)
    return experiment


def step_of(setup: Setup) -> Callable[[Numbers, State, Batch], tuple[State, Metrics]]:
    """The training step of an experiment, as a function of its numbers too."""

    def step(numbers: Numbers, state: State, batch: Batch) -> tuple[State, Metrics]:
        experiment = given(setup.experiment, numbers)
        train = experiment.train
        hidden = 1 / times_base(experiment.model)
        optimizer = optimizers.build(experiment.optimizer, train.steps, setup.call.precision, hidden=hidden)
        step = make_step(
            make_objective(experiment),
            optimizer,
            setup.call,
            seed=train.seed,
            micro_batches=experiment.where.micro_batches,
            clip=train.clip,
            ema=train.ema,
        )
        new, metrics = step(state, batch)
        # A number that is given is float32, and makes so what a number of Python's leaves in bfloat16.
        return jax.tree.map(lambda leaf, old: leaf.astype(old.dtype), new, state), metrics

    return step


def evaluation_of(setup: Setup) -> Callable[[Numbers, State, Batch], Measured]:
    """Totals and weights of a held-out batch, as a function of the experiment's numbers too."""

    def sums(numbers: Numbers, state: State, batch: Batch) -> Measured:
        objective = asked(make_objective(given(setup.experiment, numbers)), setup.experiment.model)
        return make_sums(objective, setup.call)(state.model, state.frozen, batch)

    return sums


def compiled_step(
    setup: Setup, lanes: Lanes, numbers: Numbers, state: State, batch: Batch, *, shared: bool
) -> tuple[Callable, str]:
    """The step of all runs, and its text; numbers, state and batch are those of `Lanes.stack`.

    The state is donated. Raises UsageError for a number that the program hangs on.
    """
    step = step_of(setup)
    try:
        lowered = jax.jit(lanes.map(step, shared=shared), donate_argnums=1).lower(numbers, state, batch)
    except DECIDED:
        _name_decided(step, setup, numbers, batch, shared=shared)
        raise
    program = together.compiled(lowered, setup.options)
    return lambda state, batch: program(numbers, state, batch), lowered.as_text()


def _name_decided(step: Callable, setup: Setup, numbers: Numbers, batch: Batch, *, shared: bool) -> None:
    """Raises UsageError with the names of those numbers that the step cannot be given."""
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[0 if shared else 1 :], x.dtype), batch)
    decided = []
    for name, value in numbers.items():
        one = {name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype)}
        try:
            jax.eval_shape(step, one, setup.abstract, abstract)
        except DECIDED:
            decided.append(name)
    if decided:
        raise UsageError(
            f"{', '.join(decided)}: the program hangs on the value, so that runs which differ in it are no runs of "
            "one program: train them one after the other"
        )


def batches(lanes: Lanes, rows: Sequence[Rows], *, shared: bool) -> Callable[[int], Batch]:
    """The batch of a step, of all runs."""

    def read(step: int) -> Batch:
        if shared:
            return lanes.share(as_batch(rows[0].batch(step)))
        return lanes.stack([as_batch(one.batch(step)) for one in rows])

    return read
