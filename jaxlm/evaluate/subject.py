"""Models to be asked, out of run directories."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.objective import pooling
from jaxlm.config.sampling import Options, as_trained
from jaxlm.evaluate.results import Subject
from jaxlm.layers.contracts import Call
from jaxlm.layers.moe.module import apart
from jaxlm.runs.directory import read_experiment
from jaxlm.tokenizers import Tokenizer
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer
from jaxlm.train.load import load_run


def of_run(run: str, begin: str = "") -> Subject:
    """The newest checkpoint of a run, on one device.

    `begin` is a special token that texts begin with in place of the tokenizer's BOS: of a chat model that is often
    one that begins a turn. Raises UsageError for one that is none, and UsageError and Failure as `load_run` does.
    """
    model, tokenizer, call = load_run(run)
    if begin:
        known = tokenizer.special if isinstance(tokenizer, HuggingFaceTokenizer) else ()
        if begin not in known:
            raise UsageError(
                f"--begin {begin}: the tokenizer's special tokens are {', '.join(known) or 'not named'}"
            )
        tokenizer = replace(tokenizer, begin=begin)
    experiment = read_experiment(run)
    return subject(model, tokenizer, call, experiment)


def subject(model: Any, tokenizer: Tokenizer, call: Call, experiment: Experiment) -> Subject:
    """A model and what its experiment says of it. What it says of a text depends on no other text: see `apart`."""
    pool, names = pooling(experiment.objective, experiment.model), getattr(experiment.data, "names", ())
    model, shared = apart(model)
    notes = (f"no token is dropped here: in training {shared} rows shared the experts' capacity",)
    length = experiment.train.length
    return Subject(model, tokenizer, call, length, prefixed(experiment), pool, names, notes if shared > 1 else ())


def prefixed(experiment: Experiment) -> bool:
    """Whether a model of this experiment sees prompts from both sides."""
    return as_trained(Options(), experiment).reading == "prefix"
