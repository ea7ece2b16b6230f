"""usage: jaxlm run EXPERIMENT [--init MODEL_OR_RUN | --after RUN] [--run-dir DIR] [--profile A:B]
                 [OVERRIDES]

Trains, evaluates and samples, and writes the run to runs/NAME-HASH. Run again, it resumes exactly; a finished
run is left as it is (exit code 0). Exit code 75 means: saved, run me again. A plan of these devices that
`jaxlm plan --save` has kept is printed beside what is measured.

  EXPERIMENT               a file with `def experiment() -> Experiment`, or its module
  --init MODEL_OR_RUN      start from the parameters of a run, a directory of Hugging Face's, or a .gguf file
  --after RUN              take up where a run ended whose steps are this one's own (a longer one, a decay)
  --run-dir DIR            write to another directory (a path, gs:// or s3://)
  --profile A:B            profile steps A to B

  --train.steps 50         set a field
  model.position:learned   choose an alternative, in any order with its fields
  model:gemma2-9b          take a model of the literature
  --help                   after an experiment: all fields with their values and meaning
"""

from __future__ import annotations

from jaxlm.cli import environment, experiment, models
from jaxlm.config.errors import UsageError
from jaxlm.config.load import directory
from jaxlm.runs import plans

OPTIONS = ("init", "after", "run_dir", "profile")
USAGE = "jaxlm run EXPERIMENT [--train.steps 50 ...]"


def main(argv: list[str]) -> int:
    """Checks everything that can be checked, then trains. Returns the exit code."""
    request = experiment.parse(models.with_init(["run", *argv]), OPTIONS, USAGE)
    if request.help:
        print(experiment.fields(request.experiment))
        return 0
    profile = _profile(request.options.get("profile"), request.experiment.train.steps)
    after = request.options.get("after")
    if after is not None:
        from jaxlm.runs.ledger import find_run

        after = find_run(after)
    environment.prepare(["run", *argv])
    for line in experiment.changes(request.base, request.experiment):
        print(line)

    from jaxlm.train.run import run

    tasks = None
    if request.experiment.where.tasks:
        from jaxlm.evaluate.inside import of_experiment

        tasks = of_experiment(request.experiment)
    beside = directory(request.name) / plans.DIRECTORY
    return run(
        request.experiment,
        run_dir=request.options.get("run_dir"),
        profile=profile,
        plans=beside,
        tasks=tasks,
        after=after,
    )


def _profile(text: str | None, steps: int) -> tuple[int, int] | None:
    """Steps `A:B` to profile."""
    if text is None:
        return None
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and int(first) < int(last) <= steps):
        raise UsageError(f"--profile {text}: expected A:B with 0 <= A < B <= train.steps = {steps}")
    return int(first), int(last)
