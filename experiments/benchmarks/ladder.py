"""Runs to fit a scaling law to: four sizes, each one stable run with three decays branching off.

    python experiments/benchmarks/ladder.py runs/ladder        # ten minutes on two cores; run again, it goes on
    jaxlm laws runs/ladder

Byte models of Python's documentation and standard library with 8 to 70 thousand parameters: what is shown is how a
ladder is made, trained and read, and no law of models that one would want. Decays are in the directory itself, the
stable runs that they branch off in `stable` below it, as their losses belong to no law.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path

from jaxlm.config import (
    AdamW,
    Attention,
    Block,
    Bytes,
    Constant,
    Corpus,
    Decoder,
    Every,
    Experiment,
    Gated,
    Train,
    Where,
)
from jaxlm.study.ladder import Leg, branches, ladder, narrower
from jaxlm.train.run import run

SIZES = ((16, 2), (24, 2), (32, 2), (48, 2))
STEPS = (150, 300, 600)


def experiment() -> Experiment:
    """The narrowest model over the longest run."""
    return Experiment(
        name="ladder",
        model=Decoder(
            vocab=264,
            embed=16,
            layers=2,
            block=Block(attention=Attention(heads=2, kv_heads=2, head=8), mlp=Gated(width=48)),
        ),
        tokenizer=Bytes(),
        data=Corpus(held_out=50_000),
        optimizer=AdamW(schedule=Constant(peak=1e-2, warmup=20)),
        train=Train(steps=STEPS[-1], batch=8, length=128),
        where=Where(layers="unroll", every=Every(log=50, evaluate=0, checkpoint=0)),
    )


def legs() -> list[Leg]:
    """All pieces in an order in which each comes after the one that it goes on from."""
    base = experiment()
    longest = base.train.steps * base.train.batch * base.train.length
    sizes = ladder(base, SIZES, [lambda _: longest], narrower(0.5))
    named = (dataclasses.replace(one, name=f"{one.model.embed}x{one.model.layers}") for one in sizes)
    return [leg for one in named for leg in branches(one, STEPS)]


def main() -> None:
    """Trains what is not finished, each piece in a process of its own; `--leg NAME` is one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--leg")
    options = parser.parse_args()
    all_legs = {leg.experiment.name: leg for leg in legs()}

    def place(name: str) -> Path:
        return options.directory / ("stable" if "stable" in name else "") / name

    if options.leg is not None:
        leg = all_legs[options.leg]
        after = str(place(leg.after)) if leg.after else None
        sys.exit(run(leg.experiment, run_dir=str(place(options.leg)), after=after))
    for name in all_legs:
        if not (place(name) / "DONE").exists():
            command = [sys.executable, __file__, str(options.directory), "--leg", name]
            if code := subprocess.run(command).returncode:
                sys.exit(code)


if __name__ == "__main__":
    main()
