"""usage: jaxlm import MODEL [RUN]
       jaxlm import ADAPTER [RUN] --base MODEL_OR_RUN

Makes a run of a model that others keep, which `jaxlm generate RUN`, `jaxlm run ... --init RUN` and
`jaxlm export RUN` take as one's own. Nothing is downloaded, and no code of the model's is run.

  MODEL      a directory of Hugging Face's (config.json, safetensors, tokenizer), or a .gguf file
  ADAPTER    a directory of PEFT's (adapter_config.json, adapter_model.safetensors)
  --base     the model that the adapter was trained on
  RUN        a new directory; by default runs/<name of the model>-<hash>
"""

from __future__ import annotations

from pathlib import Path

from jaxlm.cli import environment, models
from jaxlm.cli.experiment import take
from jaxlm.config.errors import UsageError

USAGE = "jaxlm import MODEL [RUN], or jaxlm import ADAPTER [RUN] --base MODEL_OR_RUN"


def main(argv: list[str]) -> int:
    """Writes the run and says where. Returns the exit code."""
    given, words = take(argv, ("base",))
    if not 1 <= len(words) <= 2 or any(word.startswith("-") for word in words):
        raise UsageError(f"expected a model and at most one new directory: {USAGE}")
    path = Path(words[0])
    if not path.exists():
        raise UsageError(f"there is no {path}: name a directory with a config.json, or a .gguf file")
    adapter = (path / "adapter_config.json").exists()
    if adapter != ("base" in given):
        what = "is an adapter: name what it was trained on" if adapter else "is no adapter of PEFT's: leave out"
        raise UsageError(f"{path} {what}, --base MODEL_OR_RUN")
    command = ["import", *argv]
    if adapter:
        from jaxlm.runs.ledger import find_run

        base = find_run(models.run_of(given["base"], command))
    environment.prepare(command)

    from jaxlm.interop.imported import bring, bring_adapter

    print(bring_adapter(path, base, *words[1:]) if adapter else bring(path, *words[1:]))
    return 0
