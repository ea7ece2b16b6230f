"""How few bits, and by which method: to nearest, HQQ, AWQ, GPTQ, and training through the rounding.

What is asked.

    python experiments/benchmarks/bits.py --plot bits.png
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import small

from jaxlm import config
from jaxlm.cli import environment
from jaxlm.cli.text import table
from jaxlm.data.prepare import Prepared
from jaxlm.quantize.methods import choose
from jaxlm.runs.directory import read_experiment
from jaxlm.study.statistics import judge, paired

BITS, GROUP = (8, 4, 3, 2), 64
METHODS = {
    "nearest": (config.Nearest(), False),
    "hqq": (config.Hqq(), False),
    "awq": (config.Awq(), False),
    "gptq": (config.Gptq(), False),
    "nearest, symmetric": (config.Nearest(), True),
}
AWARE = {
    "straight-through": (config.StraightThrough(), False),
    "straight-through, symmetric": (config.StraightThrough(), True),
    "lsq": (config.Lsq(), True),
}
"""What the grid's steps follow, and whether it is symmetric: learned steps there are of such grids only."""
ONWARD = {"nearest, trained on": config.Nearest(), "gptq, trained on": config.Gptq()}
"""Of the model that has gone on without rounding for as many steps as those that are trained through it."""
BASELINES = dict.fromkeys(METHODS, "nearest") | dict.fromkeys((*ONWARD, *AWARE), "nearest, trained on")
"""What each is compared with: rounding to nearest what was trained for as long."""
EXPECTED = (
    ("straight-through", "gptq, trained on"),
    ("lsq", "gptq, trained on"),
    ("gptq", "awq"),
    ("awq", "hqq"),
    ("hqq", "nearest"),
)
"""The order that the literature has from 3 bits on: the left is to lose less."""
CALIBRATION = 8
"""Batches that methods look at: 8,192 tokens."""
STEPS, PEAK = 150, 3e-4
Losses = dict[str, small.Values]


def format_of(bits: int, symmetric: bool = False) -> config.Integers:
    """The grid of all methods; LSQ's has no zero points."""
    return config.Integers(bits, symmetric, GROUP)


def rounded(subject: small.Subject, bits: int, method: config.quantization.Method, symmetric: bool) -> float:
    """The loss of held-out text with rounded weights."""
    asked = config.Rounded((config.Rule(format=format_of(bits, symmetric)),), method=method)
    model, _ = choose(subject.model, subject.rows, subject.call, asked, batch=16, say=small.quiet)
    return subject.loss(small.plain(model))


def onward(run: str, steps: int, quantization: config.quantization.Quantization) -> config.Experiment:
    """More steps from a run, in the rounding or without one."""
    theirs = read_experiment(run)
    return small.from_run(
        run,
        theirs,
        name="small-onward",
        quantization=quantization,
        optimizer=config.AdamW(config.Linear(PEAK, warmup=10), decay=0.0),
        train=dataclasses.replace(theirs.train, steps=steps),
    )


def gone_on(
    runs: Sequence[str], steps: int, quantization: config.quantization.Quantization, folder: Path, data: Prepared
) -> list[str]:
    """Runs that went on from these, in one program."""
    return small.trained([onward(run, steps, quantization) for run in runs], folder, data, small.quiet)


def losses(subjects: Sequence[small.Subject], later: Sequence[small.Subject], bits: int) -> Losses:
    """Of every method without training at so many bits, in the order of the models."""

    def each(subjects: Sequence[small.Subject], method: Any, symmetric: bool = False) -> small.Values:
        return np.array([rounded(one, bits, method, symmetric) for one in subjects])

    found = {name: each(subjects, *kind) for name, kind in METHODS.items()}
    return found | {name: each(later, method) for name, method in ONWARD.items()}


def learned(runs: Sequence[str], bits: int, steps: int, folder: Path, data: Prepared) -> Losses:
    """Of training through the rounding at so many bits, measured with what is stored; in the order of the runs."""

    def one(scales: Any, symmetric: bool) -> small.Values:
        through = config.Aware((config.Rule(format=format_of(bits, symmetric)),), scales=scales)
        return np.array([small.loss_of(run) for run in gone_on(runs, steps, through, folder, data)])

    return {name: one(*kind) for name, kind in AWARE.items()}


def lines(bits: int, found: Losses, whole: small.Values) -> list[tuple[str, ...]]:
    """A line for each method, compared with rounding to nearest; Holm's correction is for all of them."""
    pairs = {
        name: paired(values, found[BASELINES[name]]) for name, values in found.items() if BASELINES[name] != name
    }
    verdicts = judge(pairs, "lower")
    return [
        (
            str(bits),
            name,
            f"{values.mean():.4f}",
            f"{np.mean(values - whole):+.4f}",
            *small.cells(verdicts.get(name)),
        )
        for name, values in found.items()
    ]


def ordered(bits: int, found: Losses) -> list[tuple[str, ...]]:
    """A line for each neighbor in the expected order: the first is to lose less than the second."""
    pairs = {f"{left} - {right}": paired(found[left], found[right]) for left, right in EXPECTED}
    return [(str(bits), name, *small.cells(one)) for name, one in judge(pairs, "lower").items()]


def draw(figure: Any, found: dict[int, Losses], whole: small.Values) -> None:
    """What rounding adds to the loss, by bits: means, with the least and the largest of the seeds."""
    axes = figure.subplots()
    for place, name in enumerate(next(iter(found.values()))):
        middle, low, high = zip(*(small.limits(one[name] - whole) for one in found.values()), strict=True)
        x = np.arange(len(found)) + 0.05 * (place - 3.5)
        axes.plot(x, middle, "-o", color=f"C{place}", label=name, markersize=3, linewidth=1)
        axes.vlines(x, low, high, color=f"C{place}", linewidth=1)
    axes.set_yscale("symlog", linthresh=0.02)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_xticks(range(len(found)), list(found))
    axes.set(xlabel=f"bits, groups of {GROUP}", ylabel="held-out loss less that of float32 (nats)")
    axes.legend(frameon=False)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--bits", type=int, nargs="+", default=list(BITS))
    parser.add_argument("--steps", type=int, default=STEPS, help="of training through the rounding")
    parser.add_argument("--base-steps", type=int, default=small.STEPS, help="before anything is rounded")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    asked = parser.parse_args()
    environment.prepare(sys.argv[1:], runs=asked.seeds)
    began = time.monotonic()
    bases = [small.base(seed, asked.base_steps) for seed in range(asked.seeds)]
    data = small.data_of(bases[0])
    runs = small.trained(bases, asked.runs, data)
    further = gone_on(runs, asked.steps, config.NoQuantization(), asked.runs, data)
    subjects, later = ([small.subject(run, CALIBRATION) for run in some] for some in (runs, further))
    whole, more = (np.array([one.loss(one.model) for one in some]) for some in (subjects, later))
    print(f"float32 {whole.mean():.4f}, after {asked.steps} more steps {more.mean():.4f}", flush=True)
    found = {}
    for bits in asked.bits:
        found[bits] = losses(subjects, later, bits) | learned(runs, bits, asked.steps, asked.runs, data)
        print(f"\n{table(('bits', 'method', 'loss', 'rise', *small.JUDGED), lines(bits, found[bits], whole))}")
        print(f"\n{table(('bits', 'pair', *small.JUDGED), ordered(bits, found[bits]))}", flush=True)
    if asked.plot:
        small.save(asked.plot, lambda figure: draw(figure, found, whole), (5, 4))
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
