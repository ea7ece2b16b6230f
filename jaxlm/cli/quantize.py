"""usage: jaxlm quantize MODEL_OR_RUN [--method NAME] [--bits N] [--group N] [--held-out N] [--run-dir DIR]
                      [OVERRIDES]

Rounds a model's weights to few bits and keeps it as a run, which generates, is evaluated and adapted like any
other. Prints size and perplexity before and after, and the weights that lost most. Run again, it prints them
again.

  MODEL_OR_RUN     a run, a directory of Hugging Face's, or a .gguf file
  --method NAME    how codes are chosen: nearest, hqq, gptq (default) or awq
  --bits N         of each number, 2 to 8 (default 8)
  --group N        inputs that share a scale (default 0: all inputs of an output)
  --held-out N     batches of held-out text that perplexity is measured on (default 16)
  --run-dir DIR    write to another directory

  --train.steps 8                               set a field: methods look at steps x batch rows of the data
  --quantization.rules.0.targets mlp            only weights in whose names a regular expression is found
  --quantization.rules.1.format.bits 4          a second rule, for the weights that the first one leaves
  quantization.rules.0.format:nf4               another format: integers, nf4 or fp8
  quantization.activations:dynamic              round what products take too, token by token
  quantization.smoothing:smooth                 first even out the channels of activations (SmoothQuant)
  quantization.rotation:rotated                 first rotate a decoder's residual stream (QuaRot's stage 1a)
  quantization.rules.0.format:kept              round nothing: the rotated model itself
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.cli import environment, experiment, models
from jaxlm.cli.text import size, table
from jaxlm.config import Aware, Gptq, NoAdapter, Rotated, Rounded, Samples, Stream, Where
from jaxlm.config.check import check
from jaxlm.config.data import kept
from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.objective import on_labels
from jaxlm.config.overrides import apply
from jaxlm.config.paths import option_name
from jaxlm.config.quantization import Quantization
from jaxlm.config.rotation import rotated

if TYPE_CHECKING:
    from jaxlm.train.quantized import Outcome

OPTIONS = ("method", "bits", "group", "held_out", "run_dir")
USAGE = "jaxlm quantize MODEL_OR_RUN [--method gptq] [--bits 4] [--group 64]"
SHOWN = 8
"""Weights that are printed."""


def main(argv: list[str]) -> int:
    """Rounds, or reads what was rounded, and prints it. Returns the exit code."""
    given, words = experiment.take(argv, OPTIONS)
    if not words or words[0].startswith("-"):
        raise UsageError(f"the model comes first: {USAGE}")
    most = given.pop("held_out", "16")
    if not most.isdigit() or int(most) < 1:
        raise UsageError(f"--held-out {most}: expected a number of batches")
    run_dir = given.pop("run_dir", None)
    from jaxlm.runs.ledger import find_run

    run = find_run(models.run_of(words[0], ["quantize", *argv]))
    asked = request(run, given, words[1:])
    environment.prepare(["quantize", *argv])

    from jaxlm.train.quantized import quantize

    path, outcome = quantize(asked, run_dir=run_dir, most=int(most), say=print)
    print(f"\n{page(outcome)}\n\n{path}")
    return 0


def request(run: str, given: dict[str, str], words: list[str]) -> Experiment:
    """The experiment whose parameters are the run's, rounded. Raises UsageError."""
    from jaxlm.runs.directory import read_experiment
    from jaxlm.runs.initial import pinned

    theirs = read_experiment(run)
    if isinstance(theirs.quantization, Rounded):
        made = f", {theirs.initial.partition('@')[0]}" if theirs.initial else ""
        raise UsageError(f"{run} is quantized already: name the model that it was made from{made}")
    begun = _start(theirs.quantization)
    start = dataclasses.replace(
        theirs,
        name=f"{theirs.name}-rounded",
        tokenizer=kept(theirs.tokenizer, Path(run) / "tokenizer"),
        packing=Stream(),
        objective=on_labels(theirs.objective),
        adapter=NoAdapter(),
        quantization=begun,
        train=dataclasses.replace(theirs.train, steps=4, batch=8, length=min(theirs.train.length, 256), ema=None),
        initial=run,
        teacher="",
        samples=Samples(),
        where=Where(),
    )
    short = [word for name, value in given.items() for word in _written(name, value)]
    asked = apply(start, [*short, *words], OPTIONS)
    if not isinstance(asked.quantization, Rounded):
        raise UsageError(f"quantization is {option_name(type(asked.quantization))}: a model is stored rounded")
    if isinstance(theirs.quantization, Aware) and dataclasses.replace(asked.quantization, cache="model") != begun:
        raise UsageError(f"{run} was trained through a rounding of its own, and is stored by that: change no other")
    if isinstance(asked.quantization.rotation, Rotated):
        asked = dataclasses.replace(asked, model=rotated(asked.model))
    check(dataclasses.replace(asked, quantization=theirs.quantization))
    return pinned(asked)


def _start(theirs: Quantization) -> Rounded:
    """What has been trained through a rounding is stored by the same; else GPTQ chooses codes of 8 bits."""
    if isinstance(theirs, Aware):
        return Rounded(theirs.rules, theirs.activations)
    return Rounded(method=Gptq())


def _written(name: str, value: str) -> list[str]:
    if name == "method":
        return [f"quantization.method:{value}"]
    return [f"--quantization.rules.0.format.{name}", value]


def page(outcome: Outcome) -> str:
    """Sizes, losses, and the weights that lost most."""
    before, after = outcome.before, outcome.after
    share = f"{after.bytes / before.bytes:.3f}"
    rows = [("size", size(before.bytes), size(after.bytes), share)]
    for name, value in before.losses.items():
        rows.append((name, f"{value:.4f}", f"{after.losses[name]:.4f}", f"{after.losses[name] - value:+.4f}"))
    rows.append(_perplexity(outcome))
    parts = [table((f"{outcome.tokens:,} tokens", "before", "after", "change"), rows)]
    if outcome.weights:
        lost = [(one.name, one.layer, f"{one.error:.4f}", f"{one.nearest:.4f}") for one in outcome.weights[:SHOWN]]
        parts.append(table(("lost most", "layer", "error of its product", "rounded to nearest"), lost))
    return "\n\n".join(parts)


def _perplexity(outcome: Outcome) -> tuple[str, str, str, str]:
    before, after = outcome.before.perplexity, outcome.after.perplexity
    return ("perplexity", f"{before:.4f}", f"{after:.4f}", f"{100 * (after / before - 1):+.2f} %")
