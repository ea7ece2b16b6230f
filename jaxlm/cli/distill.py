"""usage: jaxlm distill TEACHER [--layers WHICH] [--held-out N] [--run-dir DIR] [OVERRIDES]
       jaxlm distill api PROMPTS ... --teacher URL --model NAME --out FILE.jsonl [OPTION ...]
       jaxlm distill own MODEL_OR_RUN --out FILE.jsonl [OPTION ...]

Trains a smaller model on a larger one's text and distributions, and prints both sizes and perplexities; run
again, it resumes. The student is what is kept of the teacher. Through an API, whose distributions are not
seen, it asks the teacher for texts to train on: jaxlm distill api --help. Texts that a model writes itself
are in place of data that is not there: jaxlm distill own --help.

  TEACHER          a run, a directory of Hugging Face's, or a .gguf file
  --layers WHICH   "half" (default): every other one; "all"; or numbers counted from 0, as in 0,2,5
  --scratch        the student begins from random numbers
  --held-out N     batches of held-out text that both are measured on (default 16)
  --run-dir DIR    write to another directory

  --train.steps 500                      set a field, as for jaxlm run
  --cut.width 128                        keep so many features of each MLP (also cut.heads, cut.embed)
  objective.response:reverse_kl          what is asked of distributions: soft_labels, jsd, ...
  objective.policy:on_policy             learn on texts that the student writes itself (GKD)
  --objective.likeliest 16               write so many of the teacher's tokens down once, and train without it
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jaxlm.cli import environment, experiment, models
from jaxlm.cli.text import size, table
from jaxlm.config import Distillation, NoAdapter, NoQuantization, Samples
from jaxlm.config.check import check
from jaxlm.config.data import kept
from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment, OfInitial
from jaxlm.config.objective import Labels
from jaxlm.config.overrides import apply
from jaxlm.config.surgery import Cut, every_other

OPTIONS = ("layers", "held_out", "run_dir")
USAGE = "jaxlm distill TEACHER [--layers half] [--train.steps 500]"
STEPS = 500
"""Of a teacher that was not trained here."""


def main(argv: list[str]) -> int:
    """Trains the student and prints the table. Returns the exit code."""
    if argv[:1] == ["api"]:
        from jaxlm.cli import distill_api

        return distill_api.main(argv[1:])
    if argv[:1] == ["own"]:
        from jaxlm.cli import distill_own

        return distill_own.main(argv[1:])
    given, words = experiment.take(argv, OPTIONS, ("scratch",))
    if not words or words[0].startswith("-"):
        raise UsageError(f"the teacher comes first: {USAGE}")
    most = given.get("held_out", "16")
    if not most.isdigit() or int(most) < 1:
        raise UsageError(f"--held-out {most}: expected a number of batches")
    from jaxlm.runs.ledger import find_run

    run = find_run(models.run_of(words[0], ["distill", *argv]))
    asked = request(run, given, words[1:])
    environment.prepare(["distill", *argv])

    from jaxlm.train.run import run as train
    from jaxlm.train.taught import compare

    if code := train(asked, run_dir=given.get("run_dir")):
        return code
    student, teacher, tokens = compare(asked, given.get("run_dir"), int(most), print)
    rows = [
        ("parameters", f"{teacher.parameters:,}", f"{student.parameters:,}"),
        ("size", size(teacher.bytes), size(student.bytes)),
        *((name, f"{value:.4f}", f"{student.losses[name]:.4f}") for name, value in teacher.losses.items()),
        ("perplexity", f"{teacher.perplexity:.4f}", f"{student.perplexity:.4f}"),
    ]
    print("\n" + table((f"{tokens:,} tokens", "teacher", "student"), rows))
    return 0


def request(run: str, given: dict[str, str], words: list[str]) -> Experiment:
    """The student's experiment. Raises UsageError."""
    from jaxlm.runs.directory import read_experiment
    from jaxlm.runs.initial import pinned, settled, taken

    theirs = read_experiment(run)
    objective = theirs.objective
    if not isinstance(objective, Labels):
        raise UsageError(f"{run} was trained for {type(objective).__name__}, whose labels no teacher can soften")
    train = theirs.train if theirs.train.steps > 1 else dataclasses.replace(theirs.train, steps=STEPS, batch=8)
    start = dataclasses.replace(
        theirs,
        name=f"{theirs.name}-student",
        model=OfInitial(),
        tokenizer=kept(theirs.tokenizer, Path(run) / "tokenizer"),
        objective=Distillation(objective),
        adapter=NoAdapter(),
        quantization=NoQuantization(),
        train=dataclasses.replace(train, length=min(train.length, 256)),
        initial=run,
        cut=Cut(layers=_layers(given.get("layers", "half"), theirs)),
        teacher=run,
        samples=Samples(),
    )
    asked = settled(start, apply(taken(start), words, OPTIONS))
    if "scratch" in given:
        asked = dataclasses.replace(asked, initial="", cut=Cut())
    check(asked)
    return pinned(asked)


def _layers(which: str, theirs: Experiment) -> tuple[int, ...]:
    match which:
        case "all":
            return ()
        case "half":
            return every_other(theirs.model.layers)
    if not all(word.isdigit() for word in which.split(",")):
        raise UsageError(f"--layers {which}: expected half, all, or numbers like 0,2,5")
    return tuple(map(int, which.split(",")))
