"""Models out of run directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from jaxlm.config import PRECISIONS, Mesh
from jaxlm.layers.contracts import Call
from jaxlm.parallel.layout import Layout
from jaxlm.parallel.mesh import make_mesh
from jaxlm.runs.directory import read_experiment
from jaxlm.tokenizers import Tokenizer
from jaxlm.tokenizers.build import reopen
from jaxlm.train.models import find_base, whole_model


def load_run(run_dir: str) -> tuple[Any, Tokenizer, Call]:
    """(model, tokenizer, call) of a run's newest checkpoint, on one device, which computes attention its own way.

    Raises UsageError for what is no run, Failure for one without a checkpoint or a damaged one.
    """
    experiment = read_experiment(run_dir)
    precision = PRECISIONS[experiment.precision]
    layout = Layout(make_mesh(Mesh(), jax.local_devices()[:1]))
    model = whole_model(run_dir, find_base(run_dir, experiment), layout, precision)
    tokenizer = reopen(experiment.tokenizer, Path(run_dir) / "tokenizer")
    return model, tokenizer, Call(layout, precision, recurrence=experiment.where.recurrence)
