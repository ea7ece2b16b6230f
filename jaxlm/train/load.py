"""Models out of run directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from jaxlm.config import PRECISIONS, Mesh
from jaxlm.layers.axes import shardings
from jaxlm.layers.contracts import Call
from jaxlm.models import build
from jaxlm.parallel.layout import Layout
from jaxlm.parallel.mesh import make_mesh
from jaxlm.runs.directory import read_experiment
from jaxlm.tokenizers import Tokenizer
from jaxlm.tokenizers.build import reopen
from jaxlm.train.setup import load_parameters


def load_run(run_dir: str) -> tuple[Any, Tokenizer, Call]:
    """(model, tokenizer, call) of a run's newest checkpoint, on one device, which computes attention its own way.

    Raises UsageError for what is no run, Failure for one without a checkpoint or a damaged one.
    """
    experiment = read_experiment(run_dir)
    precision = PRECISIONS[experiment.precision]
    layout = Layout(make_mesh(Mesh(), jax.local_devices()[:1]))
    abstract = jax.eval_shape(lambda: build(experiment.model, jax.random.key(0), precision))
    template = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        abstract,
        shardings(abstract, layout),
    )
    model = load_parameters(run_dir, template)
    tokenizer = reopen(experiment.tokenizer, Path(run_dir) / "tokenizer")
    return model, tokenizer, Call(layout, precision, recurrence=experiment.where.recurrence)
