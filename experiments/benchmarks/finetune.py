"""Does fine-tuning teach? Held-out loss on answers before and after, beside training on answers of other prompts.

    python experiments/benchmarks/finetune.py MODEL_OR_RUN train.jsonl --prompt question --answer answer

Each seed trains twice by `experiments/posttrain/finetune.py`: on the file, and on the file with the answers of all
training conversations dealt out at random (held-out ones keep theirs). The gain is the held-out loss before minus
that after, in nats a token of the answers; its interval is Student's, at 95 %, over the seeds. Words after `--` go
to `jaxlm run`. `--keep DIR` keeps the runs; a run that is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

from jaxlm.config import Conversations
from jaxlm.corpus import conversations, deduplicate, hold_out
from jaxlm.runs.ledger import final_metrics

EXPERIMENT = Path(__file__).parents[1] / "posttrain" / "finetune.py"
METRIC = "evaluate/cross_entropy"


def jaxlm(*words: str) -> str:
    """A command's output; where it fails, all of it is shown."""
    done = subprocess.run([sys.executable, "-m", "jaxlm", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"jaxlm {' '.join(words)} ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def dealt(file: Path, data: Conversations, target: Path, seed: int) -> None:
    """The same file, the answers of its training conversations in random order."""
    _, held_out = hold_out(deduplicate(conversations(data))[0], data.held_out)
    kept = {int(document.name.rpartition(":")[2]) for document in held_out}
    lines = {i: json.loads(line) for i, line in enumerate(file.read_text().splitlines(), 1) if line.strip()}
    moved = [i for i in lines if i not in kept]
    answers = [lines[i][data.answer] for i in moved]
    random.Random(seed).shuffle(answers)
    for i, answer in zip(moved, answers, strict=True):
        lines[i][data.answer] = answer
    target.write_text("".join(json.dumps(line) + "\n" for line in lines.values()))


def held_out_loss(run: Path, words: list[str], command: tuple[str, ...] = ("run", str(EXPERIMENT))) -> float:
    """Of a run, trained by a command of jaxlm's unless it is there."""
    if not (run / "DONE").exists():
        jaxlm(*command, "--run-dir", str(run), *words)
    loss = final_metrics(str(run))[METRIC]
    print(f"{run.name:24}{loss:10.4f}", flush=True)
    return loss


def interval(values: list[float]) -> tuple[float, float, float]:
    """(mean, low, high) at 95 %."""
    mean, error = float(np.mean(values)), float(stats.sem(values)) if len(values) > 1 else float("nan")
    half = float(stats.t.ppf(0.975, max(len(values) - 1, 1))) * error
    return mean, mean - half, mean + half


def parser_of(description: str) -> argparse.ArgumentParser:
    """A model, and the file that it learns from."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("file", type=Path)
    parser.add_argument("--prompt", default="prompt")
    parser.add_argument("--answer", default="answer")
    parser.add_argument("--held-out", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="directory for the runs")
    return parser


def main() -> None:
    """Prints the losses and the gains."""
    options, more = parser_of(__doc__).parse_known_args()
    data = Conversations((str(options.file),), options.prompt, options.answer, held_out=options.held_out)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        common = ["--init", options.model, "--data.prompt", options.prompt, "--data.answer", options.answer]
        common += ["--data.held_out", str(options.held_out), *(word for word in more if word != "--")]
        nothing = ["--train.steps", "1", "--optimizer.schedule.peak", "0"]
        print(f"{'run':24}{'held out':>10}")
        before = held_out_loss(folder / "before", [*common, "--data.paths", str(options.file), *nothing])
        gains: dict[str, list[float]] = {"answers": [], "dealt": []}
        for seed in range(options.seeds):
            dealt(options.file, data, folder / f"dealt{seed}.jsonl", seed)
            for name, file in (("answers", options.file), ("dealt", folder / f"dealt{seed}.jsonl")):
                words = [*common, "--data.paths", str(file), "--train.seed", str(seed)]
                gains[name].append(before - held_out_loss(folder / f"{name}{seed}", words))
    print(f"\n{'trained on':14}{'gain':>10}   95 % interval")
    for name, values in gains.items():
        mean, low, high = interval(values)
        print(f"{name:14}{mean:10.4f}   {low:.4f} to {high:.4f}")
    print(f"answers dealt at random gain {np.mean(gains['dealt']) / np.mean(gains['answers']):.2f} of it")


if __name__ == "__main__":
    main()
