"""How well does a small BERT fill in masks after minutes, beside always saying the commonest token?

    python experiments/benchmarks/masked_accuracy.py

Trains `experiments/objectives/masked_lm.py` from several seeds and prints the accuracy on held-out masked tokens,
the share of the training text's most frequent token among all words of the held-out text, and the seconds that
steps took. Words after `--` go to `jaxlm run`. `--keep DIR` keeps the runs; a run that is there is not run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from jaxlm.config.load import load_experiment
from jaxlm.data.prepare import prepare
from jaxlm.runs import goodput
from jaxlm.runs.journal import read_metrics
from jaxlm.runs.ledger import final_metrics
from jaxlm.tokenizers.special import of
from jaxlm.train.setup import cache_directory

EXPERIMENT = Path(__file__).parents[1] / "objectives" / "masked_lm.py"


def trained(run: Path, words: list[str]) -> tuple[float, float]:
    """(Accuracy on held-out masked tokens, seconds of steps) of a run, trained unless it is there."""
    if not (run / "DONE").exists():
        command = [sys.executable, "-m", "jaxlm", "run", str(EXPERIMENT), "--run-dir", str(run), *words]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
    seconds = goodput.breakdown(read_metrics(run, ("event",)))
    return final_metrics(str(run))["evaluate/accuracy"], seconds["step"] + seconds["data"]


def commonest() -> float:
    """The share, among the words of the held-out text, of the training text's most frequent token."""
    tree = load_experiment(str(EXPERIMENT))
    found = prepare(tree.data, tree.tokenizer, cache_directory())
    special = np.array(of(found.tokenizer).ids)
    train, held_out = (x[~np.isin(x, special)] for x in (found.train.tokens, found.held_out.tokens))
    return float(np.mean(held_out == np.bincount(train).argmax()))


def main() -> None:
    """Prints each seed's accuracy and the mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="directory for the runs")
    options, more = parser.parse_known_args()
    words = [word for word in more if word != "--"]
    share = commonest()
    print(f"the commonest token: {100 * share:.2f} % of the held-out words", flush=True)
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        for seed in range(options.seeds):
            accuracy, seconds = trained(folder / f"seed{seed}", [*words, "--train.seed", str(seed)])
            found.append(accuracy)
            print(f"seed {seed}: {100 * accuracy:.2f} % of masked tokens, {seconds:.0f} s of steps", flush=True)
    mean = float(np.mean(found))
    print(f"mean {100 * mean:.2f} %, {mean / share:.1f} times the commonest token's")


if __name__ == "__main__":
    main()
