"""usage: jaxlm generate MODEL_OR_RUN --prompt TEXT [--tokens N] [--temperature T] [--seed S] [--samples N]
                      [--top-k K] [--top-p P] [--min-p M] [--reading R]

Text from a model, written as it is drawn.

  MODEL_OR_RUN         a run directory or its name in runs/, a directory of Hugging Face's, or a .gguf file
  --prompt TEXT        what to continue; - reads standard input
  --tokens 100         most tokens to draw
  --temperature 1.0    divides the logits; 0 takes the likeliest token
  --top-k K            keep the K likeliest tokens
  --top-p P            keep the fewest tokens that hold probability P
  --min-p M            keep tokens at least M times as probable as the likeliest
  --seed 0             the same seed draws the same text
  --samples 1          independent continuations
  --reading trained    how a decoder sees the prompt: as in training; causal; or prefix, from both sides
"""

from __future__ import annotations

import argparse
import sys

from jaxlm.cli import environment, models
from jaxlm.config.errors import UsageError
from jaxlm.config.sampling import Options


class Parser(argparse.ArgumentParser):
    """Raises what argparse prints."""

    def error(self, message: str):
        """The message as UsageError."""
        raise UsageError(f"{message}; {self.prog} --help tells more")


KINDS = {"tokens": int, "temperature": float, "top_k": int, "top_p": float, "min_p": float, "seed": int}


def parse(argv: list[str]) -> tuple[str, str, Options]:
    """Run, prompt and options. Raises UsageError."""
    parser = Parser(prog="jaxlm generate", add_help=False, allow_abbrev=False)
    parser.add_argument("run", metavar="MODEL_OR_RUN")
    parser.add_argument("--prompt", required=True)
    found, options = drawn(parser, argv, KINDS | {"samples": int, "reading": str})
    return found["run"], found["prompt"], options


def drawn(parser: Parser, argv: list[str], kinds: dict[str, type]) -> tuple[dict[str, str], Options]:
    """What a parser was given besides `kinds`, the options of drawing. Raises UsageError."""
    for name, kind in kinds.items():
        parser.add_argument(f"--{name.replace('_', '-')}", f"--{name}", dest=name, type=kind)
    found = vars(parser.parse_args(argv))
    options = Options(**{name: found.pop(name) for name in kinds if found[name] is not None})
    _check(options)
    return found, options


def _check(o: Options) -> None:
    limits = {
        "tokens": (o.tokens >= 1, "at least 1"),
        "samples": (o.samples >= 1, "at least 1"),
        "temperature": (0 <= o.temperature < float("inf"), "0 or more"),
        "top-k": (o.top_k >= 0, "0 (all) or more"),
        "top-p": (0 < o.top_p <= 1, "above 0 and at most 1"),
        "min-p": (0 <= o.min_p < 1, "at least 0 and below 1"),
        "reading": (o.reading in ("trained", "causal", "prefix"), "trained, causal or prefix"),
    }
    for name, (good, expected) in limits.items():
        if not good:
            raise UsageError(f"--{name} {getattr(o, name.replace('-', '_'))}: expected {expected}")


def main(argv: list[str]) -> int:
    """Prints the prompt and what follows it. Returns the exit code."""
    name, prompt, options = parse(argv)
    from jaxlm.runs.ledger import find_run

    run = find_run(models.run_of(name, ["generate", *argv]))
    environment.prepare(["generate", *argv])
    if prompt == "-":
        prompt = sys.stdin.read()

    from jaxlm.serve.generate import generate

    for number, pieces in enumerate(generate(run, prompt, options), 1):
        if options.samples > 1:
            print(f"--- {number} of {options.samples} ---")
        print(prompt, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
    return 0
