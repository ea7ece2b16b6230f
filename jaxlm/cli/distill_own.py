"""usage: jaxlm distill own MODEL_OR_RUN --out FILE.jsonl [--texts N] [--tokens N] [--likeliest N]
                         [--temperature T] [--seed S] [--batch N]

Texts that a model writes itself, to teach a smaller or rounded one of its kind without the data that it was
trained on (LLM-QAT). Each begins with a random token, goes on with a few likeliest ones, and is then drawn.
Stopped anywhere, the same command goes on.

  MODEL_OR_RUN         a run, a directory of Hugging Face's, or a .gguf file
  --out FILE.jsonl     a line for each text, with its origin: data.source:text_files reads it
  --texts 1000         how many
  --tokens 256         of a text at most
  --likeliest 4        tokens after the first that are not drawn
  --temperature 1.0    of those that are
  --seed 0             the same seed writes the same texts
  --batch 16           texts written at once
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jaxlm.cli import environment, models
from jaxlm.cli.generate import Parser
from jaxlm.config.errors import UsageError

NAME = "jaxlm distill own"
KINDS = {"texts": int, "tokens": int, "likeliest": int, "temperature": float, "seed": int, "batch": int}


def main(argv: list[str]) -> int:
    """Writes what is left to write. Returns the exit code."""
    if argv[:1] in (["-h"], ["--help"]):
        print((__doc__ or "").strip())
        return 0
    parser = Parser(prog=NAME, add_help=False, allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL_OR_RUN")
    parser.add_argument("--out", required=True, type=Path)
    for name, kind in KINDS.items():
        parser.add_argument(f"--{name}", type=kind)
    given = vars(parser.parse_args(argv))
    if given["temperature"] is not None and not 0 < given["temperature"] < float("inf"):
        raise UsageError(f"--temperature {given['temperature']}: expected a number above 0")
    from jaxlm.runs.digest import parameters
    from jaxlm.runs.ledger import find_run

    run = find_run(models.run_of(given["model"], ["distill", "own", *argv]))
    environment.prepare(["distill", "own", *argv])

    from jaxlm.distill.own import Writing
    from jaxlm.serve.own import write
    from jaxlm.train.load import load_run

    writing = Writing(**{name: given[name] for name in KINDS if given[name] is not None})
    model, tokenizer, call = load_run(run)
    how = {name: value for name, value in dataclasses.asdict(writing).items() if name not in ("texts", "batch")}
    origin = {"model": parameters(run), **how}
    for done in write(given["out"], model, tokenizer, writing, call, origin):
        print(f"{done} of {writing.texts} texts", flush=True)
    print(given["out"])
    return 0
