"""Is a student better with its teacher than without, at equal tokens?

    python experiments/benchmarks/taught.py MODEL_OR_RUN [--layers half] [--seeds 2] [-- WORDS]

Each seed trains the same part of a model twice by `jaxlm distill`, on the same rows: on labels and the teacher's
softened distributions, and on labels alone. Losses are of held-out text, nats a token. Words after `--` go to
`jaxlm distill`. `--keep DIR` keeps the runs; a run that is there is not run again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from finetune import held_out_loss, interval

WAYS = {
    "taught": (),
    "alone": ("objective.response:no_response", "--objective.weight", "0", "--objective.labels", "1"),
}


def main() -> None:
    """Prints the losses, and how much a teacher takes off them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--layers", default="half", help="which of the model's are kept")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="directory for the runs")
    options, more = parser.parse_known_args()
    common = ["--layers", options.layers, *(word for word in more if word != "--")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{'run':24}{'held out':>10}")
        gains = []
        for seed in range(options.seeds):
            found = {
                name: held_out_loss(
                    folder / f"{name}{seed}",
                    [*common, *words, "--train.seed", str(seed)],
                    ("distill", options.model),
                )
                for name, words in WAYS.items()
            }
            gains.append(found["alone"] - found["taught"])
    mean, low, high = interval(gains)
    spread = f", 95 % interval {low:.4f} to {high:.4f}" if len(gains) > 1 else ", from one seed"
    print(f"the teacher takes off {mean:.4f}{spread}")


if __name__ == "__main__":
    main()
