"""usage: jaxlm embed MODEL_OR_RUN --text TEXT --text TEXT ... [--pool mean|first|last]

How alike texts are to a model: the cosine of the vectors of each pair, the most alike first.

  MODEL_OR_RUN         a run directory or its name in runs/, a directory of Hugging Face's, or a .gguf file
  --text TEXT          one of the texts, two or more
  --pool mean          a text's vector: the mean of its tokens' last states, or its first or last token's; by
                       default what the model was trained for, else the mean
"""

from __future__ import annotations

from itertools import combinations

from jaxlm.cli import environment, models
from jaxlm.cli.generate import Parser
from jaxlm.cli.text import table
from jaxlm.config.errors import UsageError


def parse(argv: list[str]) -> tuple[str, list[str], str | None]:
    """Run, texts and the pooling that was asked for. Raises UsageError."""
    parser = Parser(prog="jaxlm embed", add_help=False, allow_abbrev=False)
    parser.add_argument("run", metavar="MODEL_OR_RUN")
    parser.add_argument("--text", action="append", default=[])
    parser.add_argument("--pool", choices=("mean", "first", "last"))
    found = parser.parse_args(argv)
    if len(found.text) < 2:
        raise UsageError("--text: two or more are compared, --text TEXT --text TEXT; jaxlm embed --help tells more")
    return found.run, found.text, found.pool


def main(argv: list[str]) -> int:
    """Prints the cosine of each pair. Returns the exit code."""
    name, texts, pool = parse(argv)
    from jaxlm.runs.ledger import find_run

    run = find_run(models.run_of(name, ["embed", *argv]))
    environment.prepare(["embed", *argv])

    from jaxlm.config.objective import pooling
    from jaxlm.runs.directory import read_experiment
    from jaxlm.sampling.embed import embed
    from jaxlm.train.load import load_run

    experiment = read_experiment(run)
    model, tokenizer, call = load_run(run)
    pool = pool or pooling(experiment.objective, experiment.model)
    found = embed(model, tokenizer, texts, call, pool)
    pairs = [(float(found[i] @ found[j]), texts[i], texts[j]) for i, j in combinations(range(len(texts)), 2)]
    rows = [(f"{cosine:.3f}", one, other) for cosine, one, other in sorted(pairs, key=lambda pair: -pair[0])]
    print(table(("cosine", "text", "text"), rows))
    return 0
