"""A model in fewer bits, as a run: what is rounded how, how large it is, and what that costs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from etils import epath

from jaxlm.config import PRECISIONS, Aware, Experiment, Rotated
from jaxlm.config.codec import named, what_hash
from jaxlm.data.rows import Rows
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.parallel.layout import single_device
from jaxlm.quantize.aware import stored
from jaxlm.quantize.build import with_cache
from jaxlm.quantize.methods import choose
from jaxlm.quantize.rounding import Error
from jaxlm.runs.directory import finish, is_finished, open_run, read_experiment, record, run_path
from jaxlm.runs.files import write_atomically
from jaxlm.tokenizers.build import keep
from jaxlm.train import feed
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.models import base_of, drawn
from jaxlm.train.quality import Quality, measurer
from jaxlm.train.run import prepared_data, rows_of
from jaxlm.train.setup import check_data, make_objective
from jaxlm.train.state import State

RECORD = "quantization.json"


@dataclass(frozen=True)
class Outcome:
    """A model before and after it was rounded; `weights` in order of what they lost."""

    before: Quality
    after: Quality
    weights: tuple[Error, ...]
    tokens: int
    """Held-out tokens that the losses are means of."""


def quantize(
    experiment: Experiment, *, run_dir: str | None, most: int, say: Callable[[str], None]
) -> tuple[epath.Path, Outcome]:
    """(The finished run, what it comes to) of a model rounded as `experiment.quantization` says.

    The rows of the experiment's steps are what methods look at; at most `most` batches of held-out rows are what
    losses are measured on. Raises UsageError and Failure as a run does, and as methods do.
    """
    path = run_path(experiment, run_dir)
    if is_finished(experiment, run_dir):
        return path, read(path)
    layout, precision = single_device(), PRECISIONS[experiment.precision]
    jax.eval_shape(lambda: drawn(experiment, precision))  # what does not fit the model shows before there is work
    call = Call(layout, precision, recurrence=experiment.where.recurrence, layers=experiment.where.layers)
    prepared = prepared_data(experiment, say)
    check_data(experiment, (prepared.train, prepared.held_out))
    rows, others = rows_of(experiment, prepared)
    begun = _as_begun(experiment)
    model = base_of(begun, layout, precision)
    measure, tokens = measurer(make_objective(experiment), others, call, most)
    before = measure(model)
    say(f"as it is: {before}")
    if isinstance(begun.quantization, Aware):
        rounded, lost = with_cache(stored(model), experiment.quantization.cache), []
    else:
        rounded, lost = choose(model, tokens_of(experiment, rows, call), call, experiment.quantization, say=say)
    after = measure(rounded)
    say(f"rounded: {after}")
    outcome = Outcome(before, after, tuple(sorted(lost, key=lambda one: -one.error)), tokens)
    run = open_run(experiment, run_dir)
    keep(prepared.tokenizer, Path(run.path) / "tokenizer")
    with Checkpoints(f"{run.path}/checkpoints", config=what_hash(experiment)) as checkpoints:
        checkpoints.save(0, State(jnp.zeros((), jnp.int32), rounded, {}, ()), {})
    write_atomically(run.path / RECORD, json.dumps(dataclasses.asdict(outcome), indent=1) + "\n")
    record(run, quantized=experiment.initial)
    finish(run)
    return path, outcome


def _as_begun(experiment: Experiment) -> Experiment:
    """The experiment with the numbers of the run that it begins from, and the head, which a rotation replaces."""
    theirs, model = read_experiment(named(experiment.initial)[0]), experiment.model
    if isinstance(experiment.quantization.rotation, Rotated):
        model = dataclasses.replace(model, head=theirs.model.head)
    return dataclasses.replace(experiment, model=model, quantization=theirs.quantization)


def read(path: epath.Path) -> Outcome:
    """What a finished run came to."""
    found = json.loads((path / RECORD).read_text())
    weights = tuple(Error(**one) for one in found["weights"])
    return Outcome(Quality(**found["before"]), Quality(**found["after"]), weights, found["tokens"])


def tokens_of(experiment: Experiment, rows: Rows, call: Call) -> Tokens:
    """The rows of all steps."""
    batches = [feed.global_batch(rows, call.layout, step).inputs for step in range(experiment.train.steps)]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *batches)
