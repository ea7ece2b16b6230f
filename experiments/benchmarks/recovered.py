"""How much of full fine-tuning's gain does an adapter recover, and with how few parameters?

    python experiments/benchmarks/recovered.py MODEL_OR_RUN train.jsonl --prompt question --answer answer

Each seed trains twice by `experiments/posttrain/finetune.py`: all parameters, and an adapter alone (LoRA of rank 4
unless `--adapter` says otherwise), at ten times the learning rate. A gain is the held-out loss on answers before
minus that after, in nats a token; intervals are Student's, at 95 %, over the seeds. Words after `--` go to
`jaxlm run`. `--keep DIR` keeps the runs; a run that is there is not run again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import jax
import numpy as np
from finetune import held_out_loss, interval, parser_of

from jaxlm.config import PRECISIONS
from jaxlm.layers.names import flatten
from jaxlm.runs.directory import read_experiment
from jaxlm.train.models import drawn, halves

LORA = "adapter:lora --adapter.rank 4"


def trained_share(run: Path) -> float:
    """Trained parameters of a run, of those that its model has."""
    experiment = read_experiment(str(run))
    precision = PRECISIONS[experiment.precision]

    def count(tree: object) -> int:
        return sum(leaf.size for leaf in flatten(tree).values())

    own, _ = jax.eval_shape(lambda: halves(experiment, drawn(experiment, precision)))
    return count(own) / count(jax.eval_shape(lambda: drawn(experiment, precision)))


def main() -> None:
    """Prints the losses, the gains, and the share that the adapter has of them."""
    parser = parser_of(__doc__)
    parser.add_argument("--peak", type=float, default=1e-4, help="learning rate of all parameters")
    parser.add_argument("--times", type=float, default=10.0, help="what the adapter's is, of that")
    parser.add_argument("--adapter", default=LORA, help="as jaxlm run is told, in one word")
    options, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        common = ["--init", options.model, "--data.paths", str(options.file), "--data.prompt", options.prompt]
        common += ["--data.answer", options.answer, "--data.held_out", str(options.held_out)]
        common += [word for word in more if word != "--"]
        ways = {
            "all": ["--optimizer.schedule.peak", str(options.peak)],
            "adapter": [*options.adapter.split(), "--optimizer.schedule.peak", str(options.peak * options.times)],
        }
        nothing = ["--train.steps", "1", "--optimizer.schedule.peak", "0"]
        print(f"{'run':24}{'held out':>10}")
        before = held_out_loss(folder / "before", [*common, *nothing])
        gains: dict[str, list[float]] = {name: [] for name in ways}
        for seed in range(options.seeds):
            for name, words in ways.items():
                run = folder / f"{name}{seed}"
                gains[name].append(before - held_out_loss(run, [*common, *words, "--train.seed", str(seed)]))
        shares = {name: trained_share(folder / f"{name}0") for name in ways}
    print(f"\n{'trained':10}{'parameters':>12}{'gain':>10}   95 % interval")
    for name, values in gains.items():
        mean, low, high = interval(values)
        print(f"{name:10}{shares[name]:12.2%}{mean:10.4f}   {low:.4f} to {high:.4f}")
    mean, low, high = interval(list(np.array(gains["adapter"]) / np.array(gains["all"])))
    print(f"the adapter recovers {mean:.1%} of the gain, {low:.1%} to {high:.1%}")


if __name__ == "__main__":
    main()
