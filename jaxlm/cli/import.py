"""usage: jaxlm import MODEL [RUN]

Makes a run of a model that others keep, which `jaxlm generate RUN`, `jaxlm run ... --init RUN` and
`jaxlm export RUN` take as one's own. Nothing is downloaded, and no code of the model's is run.

  MODEL   a directory of Hugging Face's (config.json, safetensors, tokenizer), or a .gguf file
  RUN     a new directory; by default runs/<name of the model>-<hash>
"""

from __future__ import annotations

from pathlib import Path

from jaxlm.cli import environment
from jaxlm.config.errors import UsageError


def main(argv: list[str]) -> int:
    """Writes the run and says where. Returns the exit code."""
    if not 1 <= len(argv) <= 2 or any(word.startswith("-") for word in argv):
        raise UsageError("expected a model and at most one new directory: jaxlm import MODEL [RUN]")
    if not Path(argv[0]).exists():
        raise UsageError(f"there is no {argv[0]}: name a directory with a config.json, or a .gguf file")
    environment.prepare(["import", *argv])

    from jaxlm.interop.imported import bring

    print(bring(Path(argv[0]), *argv[1:]))
    return 0
