"""From an experiment to what a run is made of: layout, call, model, optimizer, state."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import optax

from jaxlm.config import PRECISIONS, Experiment, flags
from jaxlm.config.codec import named
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.model import EncoderDecoder
from jaxlm.config.numbers import nearest_multiples
from jaxlm.config.objective import Contrastive, whole_rows
from jaxlm.config.parametrization import times_base
from jaxlm.config.position import Learned
from jaxlm.data.dataset import Dataset
from jaxlm.distill.build import build as build_objective
from jaxlm.distill.objective import asked
from jaxlm.distill.vocabulary import shared_tokens
from jaxlm.layers.axes import fitted
from jaxlm.layers.contracts import Call
from jaxlm.layers.stack import Stack
from jaxlm.objectives.objective import Objective
from jaxlm.parallel import pipeline
from jaxlm.parallel.layout import Layout
from jaxlm.parallel.mesh import make_mesh
from jaxlm.runs.directory import read_experiment
from jaxlm.tokenizers import Tokenizer
from jaxlm.tokenizers.build import reopen
from jaxlm.tokenizers.special import special
from jaxlm.train import optimizers
from jaxlm.train.initial import abstract_state
from jaxlm.train.state import State, place


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

    @property
    def asked(self) -> Objective:
        """The objective as held-out text is asked for it."""
        return asked(self.objective, self.experiment.model)


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
    abstract = abstract_state(experiment, optimizer, call.precision)
    if experiment.where.mesh.pipeline > 1:
        _check_stages(experiment, objective, abstract.whole(), call)
    call = dataclasses.replace(call, layout=fitted(call.layout, (abstract.whole(), abstract.frozen.get("teacher"))))
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


def check_teacher(experiment: Experiment, tokenizer: Tokenizer) -> None:
    """Raises UsageError where the teacher's tokens are not the student's: see `distill.vocabulary`."""
    run, _ = named(experiment.teacher)
    if run:
        try:
            shared_tokens(tokenizer, reopen(read_experiment(run).tokenizer, Path(run) / "tokenizer"))
        except UsageError as error:
            raise UsageError(f"teacher {run}: {error}") from None


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
