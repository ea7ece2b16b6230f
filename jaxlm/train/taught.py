"""A student and its teacher on the same held-out text."""

from __future__ import annotations

import os
from collections.abc import Callable

from jaxlm.config import PRECISIONS, Experiment
from jaxlm.config.codec import named
from jaxlm.config.objective import on_labels
from jaxlm.distill.build import build
from jaxlm.layers.contracts import Call
from jaxlm.parallel.layout import single_device
from jaxlm.runs.directory import read_experiment, run_path
from jaxlm.tokenizers.special import special
from jaxlm.train.models import find_base, whole_model
from jaxlm.train.quality import Quality, measurer
from jaxlm.train.run import prepared_data, rows_of


def compare(
    experiment: Experiment, run_dir: str | None, most: int, say: Callable[[str], None]
) -> tuple[Quality, Quality, int]:
    """(The student of a finished run, its teacher, the tokens that both were asked), by the loss on labels alone.

    Raises UsageError and Failure for a teacher that is not there any more.
    """
    layout, precision = single_device(), PRECISIONS[experiment.precision]
    call = Call(layout, precision, recurrence=experiment.where.recurrence, layers=experiment.where.layers)
    _, rows = rows_of(experiment, prepared_data(experiment, say))
    found = []
    tokens = 0
    for run in (os.fspath(run_path(experiment, run_dir)), named(experiment.teacher)[0]):
        theirs = find_base(run, read_experiment(run))
        objective = build(on_labels(experiment.objective), theirs.model, lambda: special(experiment.tokenizer))
        measure, tokens = measurer(objective, rows, call, most)
        found.append(measure(whole_model(run, theirs, layout, precision)))
    return found[0], found[1], tokens
