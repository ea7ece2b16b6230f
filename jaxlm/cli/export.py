"""usage: jaxlm export RUN DIR [--adapter]

Writes a run's newest checkpoint as Hugging Face keeps models: config.json, safetensors, and the tokenizer
as tokenizer.json and tokenizer_config.json, with which AutoTokenizer gives the run's tokens and the BOS that
it was trained with; a SentencePiece model also as tokenizer.model. The model must be one that a known family
has; what each of them lacks is said. An adapter is merged into the model that it was trained over, and
rounded numbers are written as what they stand for.

  RUN          a run directory, or its name in runs/
  DIR          a new directory
  --adapter    the run's adapter alone, as PEFT keeps it
"""

from __future__ import annotations

from pathlib import Path

from jaxlm.cli import environment
from jaxlm.cli.experiment import take
from jaxlm.config.errors import UsageError


def main(argv: list[str]) -> int:
    """Writes the directory and says so. Returns the exit code."""
    given, words = take(argv, (), ("adapter",))
    if len(words) != 2 or any(word.startswith("-") for word in words):
        raise UsageError("expected a run and a new directory: jaxlm export RUN DIR [--adapter]")
    from jaxlm.runs.ledger import find_run

    run = find_run(words[0])
    environment.prepare(["export", *argv])

    from jaxlm.interop.export import export, export_adapter

    print((export_adapter if given else export)(run, Path(words[1])))
    return 0
