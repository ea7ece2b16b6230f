"""usage: jaxlm export RUN DIR

Writes a run's newest checkpoint as Hugging Face keeps models: config.json, safetensors, and the tokenizer
as tokenizer.json and tokenizer_config.json, with which AutoTokenizer gives the run's tokens and the BOS that
it was trained with; a SentencePiece model also as tokenizer.model. The model must be one that a known family
has; what each of them lacks is said.

  RUN    a run directory, or its name in runs/
  DIR    a new directory
"""

from __future__ import annotations

from pathlib import Path

from jaxlm.cli import environment
from jaxlm.config.errors import UsageError


def main(argv: list[str]) -> int:
    """Writes the directory and says so. Returns the exit code."""
    if len(argv) != 2 or any(word.startswith("-") for word in argv):
        raise UsageError("expected a run and a new directory: jaxlm export RUN DIR")
    from jaxlm.runs.ledger import find_run

    run = find_run(argv[0])
    environment.prepare(["export", *argv])

    from jaxlm.interop.export import export

    print(export(run, Path(argv[1])))
    return 0
