"""A teacher's likeliest tokens at each place of an experiment's data, written down before training.

The teacher reads each document in pieces of a row, from its beginning: what it says of a token then follows from
the dataset, the length of rows and itself alone. With `packing:best_fit` students see the same pieces, and learn
what they would of the teacher at each step; rows of a stream cut documents elsewhere.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float

from jaxlm.cluster import together
from jaxlm.config.codec import named
from jaxlm.config.data import BestFit
from jaxlm.config.errors import UsageError
from jaxlm.config.objective import columns
from jaxlm.data import likeliest as files
from jaxlm.data.dataset import Dataset
from jaxlm.data.likeliest import Said
from jaxlm.data.prepare import Prepared
from jaxlm.data.rows import Rows, held_out
from jaxlm.layers.axes import batch_specs, fitted, specs
from jaxlm.layers.contracts import Batch, Call, Model
from jaxlm.layers.logprob import first_tokens, largest_log_probabilities
from jaxlm.objectives.chunks import sums_and_tokens_by_chunk
from jaxlm.runs.digest import parameters
from jaxlm.runs.directory import read_experiment
from jaxlm.train import feed
from jaxlm.train.initial import teacher
from jaxlm.train.setup import Setup, cache_directory

Say = Callable[[str], None]
EVERY = 10.0
"""Seconds between two lines of progress."""


def written_down(setup: Setup, prepared: Prepared, say: Say) -> Prepared:
    """The data with what the teacher says of them, where the objective asks for it: found in the cache, or made.

    Stopped anywhere, it goes on when it is called again. Raises UsageError for more tokens than there are, Failure
    where the cache cannot be written, and as `teacher`.
    """
    count = columns(setup.experiment.objective).likeliest
    if not count:
        return prepared
    shared = min(setup.experiment.model.vocab, read_experiment(named(setup.experiment.teacher)[0]).model.vocab)
    if count > shared:
        raise UsageError(f"objective.likeliest is {count}: student and teacher share {shared} tokens; use fewer")
    hers: list[Any] = []  # made for the first part that is not there yet

    def model() -> Any:
        if not hers:
            hers.append(teacher(setup))
        return hers[0]

    parts = {name: _part(setup, name, getattr(prepared, name), count, model, say) for name in ("train", "held_out")}
    return dataclasses.replace(prepared, **parts)


def _part(setup: Setup, name: str, dataset: Dataset, count: int, model: Callable[[], Any], say: Say) -> Dataset:
    experiment = setup.experiment
    run, digest = named(experiment.teacher)
    vocab, size = experiment.model.vocab, len(dataset.tokens)
    facts = {
        "data": dataset.fingerprint,
        "teacher": digest or parameters(run),
        "likeliest": count,
        "length": experiment.train.length,
        "positions": experiment.packing.positions,
        "vocab": vocab,
        "precision": experiment.precision,
        "tokens": size,
    }
    fingerprint = sha256(json.dumps([files.FORMAT, facts]).encode()).hexdigest()
    directory = cache_directory() / f"likeliest-{fingerprint[:16]}"
    packing = BestFit(positions=experiment.packing.positions)
    rows = held_out(dataset, packing, batch=experiment.train.batch, length=experiment.train.length)
    done = _told(files.done(directory))
    if done is not None:
        first = done // rows.size  # whoever began may have had other batches of the same rows
        say(f"teacher: writing the {count} likeliest tokens of each of {size:,} places ({name})")
        said = _said(setup, rows, count, model(), first, say)
        if not jax.process_index():
            files.write(directory, said, first * rows.size, rows.size, vocab, facts)
        for _ in said:  # the other processes compute their part
            pass
    found = together.together(lambda: files.load(directory, size, count, fingerprint))
    return dataclasses.replace(dataset, likeliest=found)


def _told(first: int | None) -> int | None:
    """What process 0 found, on all processes."""
    if jax.process_count() == 1:
        return first
    found = int(multihost_utils.broadcast_one_to_all(np.asarray(-1 if first is None else first)))
    return None if found < 0 else found


def _said(setup: Setup, rows: Rows, count: int, model: Any, first: int, say: Say) -> Iterator[Said]:
    """What the teacher says at each step's places, from step `first` on."""
    layout = fitted(setup.call.layout, model)
    call = dataclasses.replace(setup.call, layout=layout)
    vocab = min(setup.experiment.model.vocab, model.config.vocab)
    likeliest = jax.jit(make_likeliest(call, count, vocab, setup.experiment.objective.chunks))
    program = together.compiled(likeliest.lower(model, feed.abstract_batch(rows, layout)))
    place, spoken = np.argsort(layout.order(rows.length)), time.monotonic()
    for step in range(first, rows.steps):
        both = program(model, feed.global_batch(rows, layout, step))
        logs, tokens = (_whole(x)[:, place] for x in both)
        keys, places = rows.plan.places(step * rows.size, rows.size)
        real = keys >= 0
        places = (rows.dataset.offsets[keys % rows.dataset.documents] + places)[real]
        yield Said(places, logs[real], tokens[real])
        if time.monotonic() - spoken > EVERY:
            spoken = time.monotonic()
            say(f"teacher: {step + 1:,} of {rows.steps:,} batches")


def _whole(x: Array) -> np.ndarray:
    return np.asarray(x if jax.process_count() == 1 else multihost_utils.process_allgather(x, tiled=True))


def make_likeliest(
    call: Call, count: int, vocab: int, chunks: int
) -> Callable[[Model, Batch], tuple[Array, Array]]:
    """A function (model, batch) -> log-probabilities and tokens [row, pos, count], to be jitted; of the model's
    distribution over its first `vocab` tokens.
    """
    layout = call.layout

    def of_a_device(model: Model, batch: Batch) -> tuple[Array, Array]:
        scores = model.scorer(call)

        def terms(hidden: Float[Array, "row chunk embed"]) -> tuple[dict[str, Array], Any]:
            logs, tokens = largest_log_probabilities(first_tokens(scores(hidden), vocab, layout), count, layout)
            return {"logs": jnp.sum(logs)}, (logs, tokens)

        hidden = model(batch.inputs, call).hidden
        return sums_and_tokens_by_chunk(terms, hidden, (), chunks)[1]

    def likeliest(model: Model, batch: Batch) -> tuple[Array, Array]:
        given = specs(model, layout), batch_specs(batch, layout)
        place = layout.spec(("row", "tokens"), batch.targets.shape)
        return layout.spmd(of_a_device, given, (place, place))(model, batch)

    return likeliest
