"""How often a study's verdict is wrong, how often it finds what is there, and which differences it refuses.

    python experiments/benchmarks/studies.py [--studies 200]

Simulated studies have the verdicts of real ones: each seed has a draw that all arms share, four times as wide as
what is each arm's own. A study without any difference is wrong when it calls an arm different. A planted difference
is two standard deviations of the paired difference.

    arms  seeds   wrong of 200 without a difference     planted differences found
       2      3                       12   (6.0%)                  90   (45.0%)
       2      5                       10   (5.0%)                 188   (94.0%)
       4      3                        9   (4.5%)                  33   (16.5%)
       4      5                        8   (4.0%)                 145   (72.5%)
    planted differences that nobody named: 26 of 26 refused
"""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np

from jaxlm.config import AdamW, Arm, Study
from jaxlm.config.errors import UsageError
from jaxlm.config.load import load_experiment
from jaxlm.study.plan import plan
from jaxlm.study.statistics import judge, paired

SHARED, OWN = 4.0, 1.0
"""Standard deviations of a seed's draw for all arms, and of each arm's own."""
EFFECT = 2.0 * np.sqrt(2) * OWN
HIDDEN = (
    "--train.batch=8",
    "--train.length=32",
    "--train.clip=none",
    "--train.ema=0.99",
    "--train.seed=5",
    "--model.embed=32",
    "--model.layers=3",
    "--model.dropout=0.1",
    "--model.block.mlp.width=96",
    "--model.block.attention.kv_heads=1",
    "--model.block.attention.window=16",
    "--model.norm.epsilon=1e-5",
    "model.head:untied",
    "model.block.wiring:parallel",
    "--optimizer.b2=0.99",
    "--optimizer.schedule.peak=2e-3",
    "--optimizer.schedule.warmup=7",
    "--precision=bfloat16_all",
    "packing:best_fit",
    "--objective.z_loss=1e-4",
    "--data.held_out=50000",
    "--data.filters.min_chars=100",
    "--tokenizer.kind=unigram",
    "--tokenizer.special=<mask>",
    "--where.micro_batches=2",
    "--samples.tokens=50",
)
"""Changes that an arm can carry from another file without its author's knowledge."""


def verdicts(rng: np.random.Generator, arms: int, seeds: int, effect: float) -> list[str]:
    """Of all arms but the baseline, of which the first is better by `effect`."""
    draws = SHARED * rng.normal(size=seeds) + OWN * rng.normal(size=(arms, seeds))
    draws[1] -= effect
    pairs = {str(i): paired(draws[i], draws[0]) for i in range(1, arms)}
    return [one.verdict for one in judge(pairs, "lower").values()]


def refused(change: str) -> bool:
    """Whether a study whose second arm carries a change that it does not name is not planned, for that reason."""
    base = dataclasses.replace(load_experiment("experiments/quickstart.py"), optimizer=AdamW())
    arms = (Arm("rope"), Arm("alibi", ("model.position:alibi", change)))
    study = Study("positions", base, arms, (0, 1, 2), ("model.position",), match="steps")
    path = change.removeprefix("--").partition("=")[0].partition(":")[0]
    try:
        plan(study)
    except UsageError as error:
        return f"arms differ in {path}" in str(error)
    return False


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    asked = parser.parse_args()
    many = asked.studies
    print(f"arms  seeds   wrong of {many} without a difference     planted differences found")
    for arms in (2, 4):
        for seeds in (3, 5):
            rng = np.random.default_rng([arms, seeds])
            wrong = sum(set(verdicts(rng, arms, seeds, 0.0)) != {"inside noise"} for _ in range(many))
            found = sum(verdicts(rng, arms, seeds, EFFECT)[0] == "better" for _ in range(many))
            print(f"{arms:>4}{seeds:>7}{wrong:>25}   ({wrong / many:.1%}){found:>20}   ({found / many:.1%})")
    print(f"planted differences that nobody named: {sum(map(refused, HIDDEN))} of {len(HIDDEN)} refused")


if __name__ == "__main__":
    main()
