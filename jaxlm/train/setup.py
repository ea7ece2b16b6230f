"""From an experiment to what a run is made of: layout, call, model, optimizer, state."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from jaxlm.cluster import together
from jaxlm.config import PRECISIONS, Experiment, flags
from jaxlm.config.codec import initial
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.model import EncoderDecoder, NoClassifier
from jaxlm.config.numbers import nearest_multiples
from jaxlm.config.objective import Contrastive, whole_rows
from jaxlm.config.parametrization import times_base
from jaxlm.config.position import Learned
from jaxlm.data.dataset import Dataset
from jaxlm.layers import random
from jaxlm.layers.axes import fitted
from jaxlm.layers.contracts import Call
from jaxlm.layers.names import partition
from jaxlm.layers.stack import Stack
from jaxlm.models import build
from jaxlm.objectives.build import build as build_objective
from jaxlm.objectives.objective import Objective
from jaxlm.parallel import pipeline
from jaxlm.parallel.layout import Layout
from jaxlm.parallel.mesh import make_mesh
from jaxlm.runs.directory import read_experiment
from jaxlm.tokenizers.special import special
from jaxlm.train import optimizers
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.state import State, place

RUN_ONCE = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
"""How XLA:CPU compiles a program that runs once: seven times faster, for a program that runs slower."""


@dataclass(frozen=True)
class Setup:
    """Everything that is known before there is data: `abstract` is the state's shapes with their shardings."""

    experiment: Experiment
    call: Call
    objective: Objective
    optimizer: optax.GradientTransformation
    abstract: State
    options: dict[str, bool | int]
    """Compiler flags of the step: those of `where.flags` for these devices."""


def cache_directory() -> Path:
    """Where prepared data is kept between runs: $JAXLM_CACHE, or ~/.cache/jaxlm."""
    return Path(os.environ.get("JAXLM_CACHE") or Path.home() / ".cache" / "jaxlm")


def make_call(experiment: Experiment, devices: Sequence[jax.Device] | None = None) -> Call:
    """How the experiment's model is computed, on all devices unless some are named."""
    where = experiment.where
    return Call(
        layout=Layout(make_mesh(where.mesh, devices)),
        precision=PRECISIONS[experiment.precision],
        attention=where.attention,
        recurrence=where.recurrence,
        layers=where.layers,
        remat=where.remat,
        pipeline=where.pipeline,
    )


def make_setup(experiment: Experiment, devices: Sequence[jax.Device] | None = None) -> Setup:
    """Compile-time facts of an experiment, for all devices unless some are named.

    Raises UsageError where batch, mesh, micro-batches and pipeline disagree, or flags are for other devices.
    """
    call = make_call(experiment, devices)
    options = flags.of_devices(experiment.where.flags, call.layout.mesh.devices.flat[0].device_kind)
    _check_rows(experiment, call.layout)
    _check_order(experiment)
    objective = make_objective(experiment)
    if objective.couples == "batch" and experiment.where.micro_batches > 1:
        raise UsageError(
            f"where.micro_batches={experiment.where.micro_batches}: {type(objective).__name__} couples all rows "
            "of a batch, which cannot be split"
        )
    hidden = 1 / times_base(experiment.model)
    optimizer = optimizers.build(experiment.optimizer, experiment.train.steps, call.precision, hidden=hidden)
    abstract = jax.eval_shape(lambda: _initial(experiment, optimizer, call))
    if experiment.where.mesh.pipeline > 1:
        _check_stages(experiment, objective, abstract.model, call)
    call = dataclasses.replace(call, layout=fitted(call.layout, abstract.model))
    places = place(abstract, optimizer, call.layout)
    abstract = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract, places
    )
    return Setup(experiment, call, objective, optimizer, abstract, options)


def make_objective(experiment: Experiment) -> Objective:
    """An experiment's objective, for its model and its tokenizer's special tokens. Raises UsageError."""
    start = getattr(experiment.model, "start", None)
    return build_objective(
        experiment.objective, experiment.model, lambda: special(experiment.tokenizer).beginning(start)
    )


def check_data(experiment: Experiment, data: Sequence[Dataset]) -> None:
    """Raises UsageError where documents have labels that the model does not score or the objective does not look
    for, or places that the model has no vector for; Failure where there are no documents.
    """
    if not all(part.documents for part in data):
        raise Failure("data: there are no documents to train on, or none to evaluate; a text alone makes no pair")
    position, objective = getattr(experiment.model, "position", None), experiment.objective
    if isinstance(objective, Contrastive) and objective.positive == "second":
        for part in data:
            if objective.label not in part.classes:
                raise UsageError(
                    f"objective.label is {objective.label}, and the labels are {sorted(part.classes)}: none of the "
                    "pairs would belong together"
                )
    longest = max(int(part.lengths.max()) for part in data)
    # Objectives of encoder-decoders write rows whose positions begin with 0.
    table = isinstance(position, Learned) and not isinstance(experiment.model, EncoderDecoder)
    if table and experiment.packing.positions == "document" and longest > position.length:
        raise UsageError(
            f"data: the longest document has {longest:,} tokens, and model.position.length is {position.length}: "
            "use packing.positions row, which counts anew where a row cuts a document"
        )
    known = getattr(getattr(experiment.model, "classifier", None), "labels", None)
    there = max(max(part.classes, default=-1) for part in data) + 1
    if known is not None and there > known:
        raise UsageError(
            f"data: the labels are 0 to {there - 1}, and model.classifier.labels is {known}: set it to {there}"
        )


def _check_rows(experiment: Experiment, layout: Layout) -> None:
    batch, micro = experiment.train.batch, experiment.where.micro_batches
    shards = layout.shards("row")
    if batch % (micro * shards):
        unit = micro * shards
        raise UsageError(
            f"train.batch={batch} does not divide into {micro} micro-batches on {shards} shards of rows: "
            f"use {nearest_multiples(batch, unit)}, or fewer micro-batches"
        )


def _check_order(experiment: Experiment) -> None:
    context = experiment.where.mesh.context
    if context > 1 and whole_rows(experiment.objective):
        raise UsageError(
            f"where.mesh.context={context}: {type(experiment.objective).__name__} needs each row whole on a "
            "device: what it writes anew or marks depends on all of it; use context 1"
        )


def _check_stages(experiment: Experiment, objective: Objective, model: Any, call: Call) -> None:
    stages, telemetry = experiment.where.mesh.pipeline, experiment.where.every.telemetry
    if telemetry:
        raise UsageError(
            f"where.every.telemetry={telemetry}: the stages of where.mesh.pipeline={stages} return no activations; "
            "use 0"
        )
    if objective.couples == "batch":
        raise UsageError(
            f"where.mesh.pipeline={stages}: {type(objective).__name__} couples all rows of a batch, and stages see "
            "one micro-batch at a time; use 1"
        )
    shards = call.layout.shards("row") // call.layout.shards("layers")
    rows = experiment.train.batch // (experiment.where.micro_batches * shards)
    for part in jax.tree.leaves(model, is_leaf=lambda part: isinstance(part, Stack)):
        if isinstance(part, Stack):
            pipeline.schedule(call.pipeline, call.layout, part.repeats, rows)


def _initial(
    experiment: Experiment,
    optimizer: optax.GradientTransformation,
    call: Call,
    seed: Int[Array, ""] | int | None = None,
) -> State:
    seed = experiment.train.seed if seed is None else seed
    model = build(experiment.model, random.key(seed, 0, "model"), call.precision)
    trained, frozen = partition(model, lambda name, leaf: True)
    ema = None if experiment.train.ema is None else jax.tree.map(jnp.copy, trained)
    return State(jnp.zeros((), jnp.int32), trained, {"model": frozen}, optimizer.init(trained), ema)


def initial_state(setup: Setup) -> State:
    """The state before the first step, each leaf made where it lives; `initial` replaces the parameters, but for a
    classifier that its model does not have, which begins anew.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract)
    make = jax.jit(lambda: _initial(setup.experiment, setup.optimizer, setup.call), out_shardings=shardings)
    return _with_parameters(setup, together.compiled(make.lower(), _once())())


def initial_states(setups: Sequence[Setup]) -> Iterator[State]:
    """The same of experiments whose states differ in `train.seed` alone, by one program."""
    first = setups[0]
    shardings = jax.tree.map(lambda leaf: leaf.sharding, first.abstract)
    make = jax.jit(
        lambda seed: _initial(first.experiment, first.optimizer, first.call, seed), out_shardings=shardings
    )
    program = together.compiled(make.lower(jnp.int32(0)), _once())
    for setup in setups:
        yield _with_parameters(setup, program(jnp.asarray(random.low_bits(setup.experiment.train.seed))))


def _once() -> dict[str, bool | int] | None:
    return RUN_ONCE if jax.default_backend() == "cpu" else None


def _with_parameters(setup: Setup, state: State) -> State:
    """The state with the parameters that `initial` names, if it does."""
    if not setup.experiment.initial:
        return state
    run, digest = initial(setup.experiment)
    template, kept = setup.abstract.model, {}
    if getattr(template, "classifier", None) is not None and _without_classifier(read_experiment(run)):
        template, kept = template.replace(classifier=None), {"classifier": state.model.classifier}
    model = load_parameters(run, template, digest).replace(**kept)
    ema = None if state.ema is None else jax.tree.map(jnp.copy, model)
    return dataclasses.replace(state, model=model, ema=ema)


def _without_classifier(experiment: Experiment) -> bool:
    return isinstance(getattr(experiment.model, "classifier", NoClassifier()), NoClassifier)


def load_parameters(run_dir: str, template: Any, digest: str = "") -> Any:
    """A run's newest parameters, in the template's dtypes and shardings.

    Raises Failure when there are none, or when they are not those of the digest.
    """
    with Checkpoints(os.path.join(run_dir, "checkpoints"), read_only=True) as checkpoints:
        restored = checkpoints.restore(template, only="parameters")
        if restored is None:
            raise Failure(f"{run_dir} has no checkpoint yet: let it run until its first, or name another run")
        step, parameters, _ = restored
        found = checkpoints.digest(step, "parameters")
    if digest and found != digest:
        raise Failure(
            f"{run_dir} holds the parameters {found} at step {step}, not {digest}: name {run_dir} without a digest "
            "to start from these (it is another experiment), or the run that has those"
        )
    return parameters
