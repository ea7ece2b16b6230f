"""Small decoders that studies round and adapt: trained once for each seed, kept as runs, and compared in pairs."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxlm import config
from jaxlm.cli.quantize import request
from jaxlm.config.errors import Failure, UsageError
from jaxlm.data.prepare import Prepared
from jaxlm.layers.contracts import Batch, Call, Tokens
from jaxlm.layers.names import partition
from jaxlm.layers.projection import Dense, Weight
from jaxlm.layers.weights import map_weights
from jaxlm.objectives.objective import Objective
from jaxlm.quantize.weight import Quantized
from jaxlm.runs.directory import run_path
from jaxlm.runs.initial import pinned
from jaxlm.runs.ledger import final_metrics
from jaxlm.runs.report.drawing import MISSING
from jaxlm.study.statistics import Judged, judge, paired
from jaxlm.study.table import interval, number, probability, signed
from jaxlm.study.together import train_together
from jaxlm.train import feed
from jaxlm.train.held_out import make_sums, means
from jaxlm.train.load import load_run
from jaxlm.train.quantized import tokens_of
from jaxlm.train.run import prepared_data, rows_of
from jaxlm.train.setup import make_objective

STEPS = 1200
WHERE = config.Where(layers="unroll", every=config.Every(log=100, evaluate=0, checkpoint=0))
Values = Float[np.ndarray, "seed"]
JUDGED = ("difference", "95 % interval", "p", "detectable", "verdict")


def base(seed: int = 0, steps: int = STEPS) -> config.Experiment:
    """A decoder of 193,000 parameters, trained on a million tokens of Python's documentation and sources."""
    return config.Experiment(
        name="small",
        model=config.Decoder(
            vocab=512,
            embed=64,
            layers=3,
            block=config.Block(config.Attention(heads=2, kv_heads=2, head=32), config.Gated(width=192)),
        ),
        tokenizer=config.SentencePiece(vocab=512),
        data=config.Corpus(held_out=100_000),
        optimizer=config.Muon(config.Linear(peak=2e-2, warmup=20)),
        train=config.Train(steps=steps, batch=8, length=128, seed=seed),
        where=WHERE,
    )


def place(experiment: config.Experiment, folder: Path) -> str:
    """The directory of an experiment's run, below a study's folder."""
    return str(folder / run_path(experiment).name)


def trained(
    experiments: Sequence[config.Experiment], folder: Path, prepared: Prepared, say: Callable[[str], None] = print
) -> list[str]:
    """Runs that one program trains, those that are there left as they are. Raises Failure where one fails."""
    places = [place(one, folder) for one in experiments]
    for one in train_together(experiments, places, prepared, say):
        if one.status != "finished":
            raise Failure(f"{one.path} {one.status}: {one.why}")
    return places


def quiet(line: str) -> None:
    """Says nothing."""


def data_of(experiment: config.Experiment) -> Prepared:
    """Its data, made where they are missing."""
    return prepared_data(experiment, quiet)


def from_run(run: str, experiment: config.Experiment, **changes: Any) -> config.Experiment:
    """An experiment that starts from the parameters of a run, which its hash names by what they are."""
    return pinned(dataclasses.replace(experiment, initial=run, **changes))


def loss_of(run: str) -> float:
    """Of held-out text, after the last step, nats a token."""
    return final_metrics(run)["evaluate/loss"]


def judged(values: Mapping[str, Values], baseline: str) -> dict[str, Judged]:
    """A verdict for every other arm, paired with the baseline by seed, Holm's correction for all of them."""
    return judge({name: paired(one, values[baseline]) for name, one in values.items() if name != baseline}, "lower")


def cells(one: Judged | None, baseline: str = "baseline") -> tuple[str, ...]:
    """What a table says of a pair, under `JUDGED`; of the baseline itself there is None."""
    if one is None:
        return "-", "-", "-", "-", baseline
    of = one.paired
    spread = interval(of.low, of.high, signed)
    p = "-" if one.corrected is None else probability(one.corrected)
    return signed(of.mean), spread, p, number(one.detectable), one.verdict


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model that is to be rounded, and the text that it is rounded and measured by."""

    model: Any
    call: Call
    rows: Tokens
    """What methods look at: text that it may have been trained on."""
    objective: Objective
    held_out: tuple[Batch, ...]

    def loss(self, model: Any) -> float:
        """Of held-out text, nats a token; models of one structure share a program."""
        program = _sums(self.objective, self.call)
        own, rest = partition(model, lambda name, leaf: True)
        measured = [jax.device_get(program(own, {"model": rest}, batch)) for batch in self.held_out]
        return means(self.objective, measured)["loss"]


@functools.cache
def _sums(objective: Objective, call: Call) -> Callable:
    return jax.jit(make_sums(objective, call))


def subject(run: str, calibration: int, held_out: int = sys.maxsize) -> Subject:
    """A finished run's model, with so many batches to calibrate by, and at most so many held out."""
    asked = request(run, {}, [])
    asked = dataclasses.replace(asked, train=dataclasses.replace(asked.train, steps=calibration))
    model, _, call = load_run(run)
    call = dataclasses.replace(call, layers="unroll")
    rows, others = rows_of(asked, data_of(asked))
    batches = (feed.global_batch(others, call.layout, step) for step in range(min(others.steps, held_out)))
    return Subject(model, call, tokens_of(asked, rows, call), make_objective(asked), tuple(batches))


def plain(model: Any) -> Any:
    """The model with its rounded weights as the matrices that they stand for."""

    def one(_: str, weight: Weight) -> Weight:
        if not isinstance(weight, Quantized):
            return weight
        return Dense(weight.dense(), weight.bias, weight.axes, weight.inputs)

    return map_weights(one, model)


def limits(values: Values) -> tuple[float, float, float]:
    """Mean, least and largest: what a picture shows of the seeds."""
    return float(values.mean()), float(values.min()), float(values.max())


def save(path: Path, draw: Callable[[Any], None], size: tuple[float, float]) -> None:
    """A picture, drawn on one figure; its kind by the name of the file. Raises UsageError without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(f"a picture needs matplotlib ({error}): {MISSING}") from None
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure(figsize=size, layout="constrained", dpi=150)
        draw(figure)
        figure.savefig(path)
