"""Text from a run."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlm.config.sampling import Options, as_trained
from jaxlm.runs.directory import read_experiment
from jaxlm.sampling.text import stream


def generate(run: str, prompt: str, options: Options = Options()) -> Iterator[Iterator[str]]:
    """`options.samples` texts after the prompt, each piece by piece as it is drawn."""
    from jaxlm.train.load import load_run

    model, tokenizer, call = load_run(run)
    options = as_trained(options, read_experiment(run))
    for number in range(options.samples):
        yield stream(model, tokenizer, prompt, options, call, number)
