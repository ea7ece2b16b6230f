"""Models as runs have them: drawn, or out of checkpoints and of what those began from, rounded and adapted."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

import jax
from etils import epath
from jaxtyping import Array, Int, PyTree

from jaxlm.adapters.attach import merged
from jaxlm.adapters.build import adapted, trained
from jaxlm.cluster import together
from jaxlm.config import Experiment, NoAdapter, NoQuantization, NoRotation, Precision, PrefixTuning, PromptTuning
from jaxlm.config.codec import named
from jaxlm.config.distillation import projects
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.model import NoClassifier
from jaxlm.config.paths import option_name
from jaxlm.config.surgery import Cut
from jaxlm.distill import surgery
from jaxlm.distill.student import Student, student
from jaxlm.layers import random
from jaxlm.layers.axes import shardings
from jaxlm.layers.names import combine, flatten, from_nested, partition
from jaxlm.models import build
from jaxlm.parallel.layout import Layout
from jaxlm.quantize.build import quantized
from jaxlm.runs.directory import read_experiment
from jaxlm.train.checkpoints import Checkpoints

RUN_ONCE = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
"""How XLA:CPU compiles a program that runs once: seven times faster, for a program that runs slower."""


def compiled_once(make: Any, places: PyTree, *arguments: Any) -> Any:
    """A program that runs once, its results where they live."""
    options = RUN_ONCE if jax.default_backend() == "cpu" else None
    return together.compiled(jax.jit(make, out_shardings=places).lower(*arguments), options)


def drawn(experiment: Experiment, precision: Precision, seed: Int[Array, ""] | int | None = None) -> Any:
    """The model before it is adapted, from random numbers."""
    seed = experiment.train.seed if seed is None else seed
    model = build(experiment.model, random.key(seed, 0, "model"), precision)
    return quantized(model, experiment.quantization)


def halves(experiment: Experiment, base: Any, seed: Int[Array, ""] | int | None = None) -> tuple[PyTree, PyTree]:
    """(trained, frozen): the adapted model."""
    seed = experiment.train.seed if seed is None else seed
    model = adapted(base, experiment.adapter, random.key(seed, 0, "adapter"))
    return partition(model, trained(experiment.adapter))


def beside(
    experiment: Experiment,
    own: PyTree,
    rest: PyTree,
    precision: Precision,
    seed: Int[Array, ""] | int | None = None,
) -> tuple[PyTree, PyTree]:
    """Both halves with what is trained beside the model and thrown away, where the objective asks for it."""
    if not has_student(experiment):
        return own, rest
    seed = experiment.train.seed if seed is None else seed
    theirs, _ = named(experiment.teacher)
    key = random.key(seed, 0, "projections")
    whole = student(own, experiment.objective, read_experiment(theirs).model.embed, key, precision)
    return whole, Student(rest, jax.tree.map(lambda _: None, whole.projections))


def has_student(experiment: Experiment) -> bool:
    """Whether checkpoints hold a `Student`."""
    return any(projects(feature) for feature in getattr(experiment.objective, "features", ()))


def placed(model: PyTree, layout: Layout) -> PyTree:
    """Shapes and dtypes of a model, with the sharding of each array."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        model,
        shardings(model, layout),
    )


def find_base(run_dir: str, experiment: Experiment) -> Experiment:
    """The experiment of a run with what its adapter is over where that lies now: as named, or beside this run.

    Other runs need nothing but themselves. Raises UsageError where it is at neither place.
    """
    base, digest = named(experiment.initial)
    if isinstance(experiment.adapter, NoAdapter) or not base or "://" in base or Path(base).exists():
        return experiment
    beside = epath.Path(run_dir).parent / epath.Path(base).name
    if not beside.exists():
        raise UsageError(
            f"{run_dir} holds the adapter of {base}, which is neither there nor {beside}: bring it to one of both"
        )
    return dataclasses.replace(experiment, initial=f"{beside}@{digest}" if digest else str(beside))


def whole_model(
    run_dir: str, experiment: Experiment, layout: Layout, precision: Precision, digest: str = ""
) -> Any:
    """A run's newest model: what its checkpoint holds, and of an adapted one what that adapts.

    With a digest, that of its trained parameters. Raises UsageError for what is no run, Failure for one without a
    checkpoint, with a damaged one or with other parameters, and for a base that is not there any more.
    """
    base = jax.eval_shape(lambda: drawn(experiment, precision))
    only = "student" if has_student(experiment) else "parameters"
    if isinstance(experiment.adapter, NoAdapter):
        return load_parameters(run_dir, placed(base, layout), digest, only)
    own, rest = jax.eval_shape(lambda: halves(experiment, drawn(experiment, precision)))
    places = shardings(combine(own, rest), layout)
    own = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        own,
        partition(places, trained(experiment.adapter))[0],
    )
    changes = load_parameters(run_dir, own, digest, only)
    base = base_of(experiment, layout, precision)
    _, rest = jax.jit(lambda base: halves(experiment, base))(base)
    return combine(changes, rest)


def base_of(experiment: Experiment, layout: Layout, precision: Precision, seed: int | None = None) -> Any:
    """The model before it is adapted: drawn, or of the run that `initial` names, rounded as the experiment says.

    A classifier that the initial model does not have begins anew. Raises UsageError for a run whose numbers are
    rounded otherwise, and what `whole_model` raises.
    """
    fresh = placed(jax.eval_shape(lambda: drawn(experiment, precision)), layout)
    places = jax.tree.map(lambda leaf: leaf.sharding, fresh)
    run, digest = named(experiment.initial)
    if not run:
        _refuse_rotation(experiment)
        return compiled_once(lambda: drawn(experiment, precision, seed), places)()
    theirs = find_base(run, read_experiment(run))
    anew = getattr(fresh, "classifier", None) is not None and _without_classifier(theirs)
    # Of this experiment's model, which may differ in what is no parameter, such as dropout.
    ours = dataclasses.replace(experiment.model, classifier=NoClassifier()) if anew else experiment.model
    whole = theirs.model if experiment.cut != Cut() else ours
    model = whole_model(run, dataclasses.replace(theirs, model=whole), layout, precision, digest)
    if isinstance(theirs.adapter, PrefixTuning | PromptTuning):
        raise UsageError(
            f"initial {run} has {option_name(type(theirs.adapter))}, which is no part of any weight: begin from "
            f"{named(theirs.initial)[0] or 'a model'} without it"
        )
    if not isinstance(theirs.adapter, NoAdapter):
        model = merged(model)
    if experiment.cut != Cut():
        part, _ = surgery.student(model, experiment.cut)
        model = from_nested(jax.eval_shape(lambda: build(ours, jax.random.key(0), precision)), flatten(part))
    if anew:
        made = compiled_once(lambda: drawn(experiment, precision, seed).classifier, places.classifier)()
        model = model.replace(classifier=made, config=fresh.config)
    if theirs.quantization == experiment.quantization:
        return model
    _refuse_rotation(experiment)
    rounded = jax.jit(lambda model: quantized(model, experiment.quantization), out_shardings=places)
    return rounded(model)


def refuse_rounded(experiment: Experiment, theirs: Experiment, run: str) -> None:
    if theirs.quantization not in (NoQuantization(), experiment.quantization):
        raise UsageError(
            f"initial {run} holds numbers as {theirs.quantization}, and this experiment asks for "
            f"{experiment.quantization}: use quantization:of_initial, or begin from the model before it was rounded"
        )


def _refuse_rotation(experiment: Experiment) -> None:
    """Nothing, unless a rotation would be left out. Raises UsageError."""
    if getattr(experiment.quantization, "rotation", NoRotation()) != NoRotation():
        raise UsageError(
            "quantization.rotation is Rotated: jaxlm quantize rotates a model and stores it; begin from that run, "
            "with model:of_initial and quantization:of_initial"
        )


def _without_classifier(experiment: Experiment) -> bool:
    return isinstance(getattr(experiment.model, "classifier", NoClassifier()), NoClassifier)


def load_parameters(
    run_dir: str, template: Any, digest: str = "", only: Literal["parameters", "student"] = "parameters"
) -> Any:
    """A run's newest trained parameters, in the template's dtypes and shardings; the digest is that of all of them.

    Raises Failure when there are none, or when they are not those of the digest.
    """
    with Checkpoints(os.path.join(run_dir, "checkpoints"), read_only=True) as checkpoints:
        restored = checkpoints.restore(template, only=only)
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
