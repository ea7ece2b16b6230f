"""How few bits, and by which method: to nearest, HQQ, AWQ, GPTQ, and training through the rounding.

    python experiments/benchmarks/bits.py --plot bits.png

Four decoders of 193,000 parameters, one a seed, trained on 1.2 million tokens of Python's documentation and
sources (3.4041 nats a token of held-out text), each rounded in every way: the projections of the blocks, in groups
of 64 inputs; the embedding, which is the head too, is kept. GPTQ and AWQ look at 8,192 tokens. "ste"
(straight-through) and "lsq" go on from the same decoders for 150 steps of AdamW, from 3e-4 to 0, steps of the grid
and weights alike; without any rounding these 150 lead to 3.3681, and "trained on" is that model, rounded. Two
things were chosen by the held-out loss of seed 0, before the others were rounded: groups of 64 in place of 32,
with which 3 bits cost only 0.034, and of the rates 1e-4, 3e-4, 1e-3 and 3e-3 the one that was best without
rounding and at 3 bits (at 2 bits 1e-3 was better, by 0.016). LSQ learns the steps of symmetric grids, which have
no zero points: beside it stand others with such grids. "rise" is from the float32 model before the 150 steps;
differences are from nearest of what was trained for as long, and p is corrected for all eight of a width.

    bits  method                 loss     rise  difference  95 % interval             p  detectable  verdict
       8  nearest              3.4040  -0.0001           -  -                         -           -  baseline
       8  hqq                  3.4041  -0.0001    +4.8e-05  -6.2e-05 to +0.00016  1.000      0.0003  inside noise
       8  awq                  3.4041  +0.0000    +0.00013  -0.0002 to +0.00045   1.000     0.00089  inside noise
       8  gptq                 3.4041  -0.0000    +8.8e-05  -8.4e-05 to +0.00026  1.000     0.00047  inside noise
       8  nearest, symmetric   3.4043  +0.0001    +0.00025  -0.0001 to +0.00059   0.774     0.00096  inside noise
       8  nearest, trained on  3.3681  -0.0360           -  -                         -           -  baseline
       8  gptq, trained on     3.3681  -0.0360    +6.2e-06  -0.00011 to +0.00012  1.000     0.00031  inside noise
       8  ste                  3.3680  -0.0361    -2.9e-05  -8e-05 to +2.2e-05    0.997     0.00014  inside noise
       8  ste, symmetric       3.3680  -0.0361    -5.6e-05  -0.0004 to +0.00029   1.000     0.00094  inside noise
       8  lsq                  3.3702  -0.0339     +0.0021  -3.1e-05 to +0.0043   0.414      0.0059  inside noise

    bits  method                 loss     rise  difference  95 % interval            p  detectable  verdict
       4  nearest              3.4156  +0.0114           -  -                        -           -  baseline
       4  hqq                  3.4144  +0.0103     -0.0012  -0.0054 to +0.0031   0.883      0.0116  inside noise
       4  awq                  3.4118  +0.0076     -0.0038  -0.0069 to -0.00074  0.173      0.0084  inside noise
       4  gptq                 3.4076  +0.0035     -0.0080  -0.0150 to -0.00095  0.182      0.0192  inside noise
       4  nearest, symmetric   3.4174  +0.0133     +0.0018  -0.0110 to +0.0147   0.883      0.0353  inside noise
       4  nearest, trained on  3.3795  -0.0246           -  -                        -           -  baseline
       4  gptq, trained on     3.3718  -0.0323     -0.0077  -0.0125 to -0.0029   0.102      0.0132  inside noise
       4  ste                  3.3743  -0.0298     -0.0052  -0.0110 to +0.0006   0.260      0.0159  inside noise
       4  ste, symmetric       3.3750  -0.0291     -0.0045  -0.0119 to +0.0028   0.435      0.0202  inside noise
       4  lsq                  3.3873  -0.0169     +0.0078  +0.0058 to +0.0097   0.008      0.0052  worse

    bits  method                 loss     rise  difference  95 % interval           p  detectable  verdict
       3  nearest              3.4609  +0.0568           -  -                       -           -  baseline
       3  hqq                  3.4447  +0.0405     -0.0163  -0.0258 to -0.0067  0.025      0.0262  better
       3  awq                  3.4503  +0.0462     -0.0106  -0.0204 to -0.0008  0.041      0.0269  better
       3  gptq                 3.4240  +0.0199     -0.0369  -0.0512 to -0.0226  0.021      0.0392  better
       3  nearest, symmetric   3.5002  +0.0960     +0.0392  +0.0245 to +0.0539  0.021      0.0404  worse
       3  nearest, trained on  3.4249  +0.0208           -  -                       -           -  baseline
       3  gptq, trained on     3.3926  -0.0115     -0.0323  -0.0454 to -0.0193  0.021      0.0359  better
       3  ste                  3.3902  -0.0139     -0.0347  -0.0457 to -0.0238  0.016      0.0300  better
       3  ste, symmetric       3.4017  -0.0024     -0.0232  -0.0341 to -0.0123  0.021      0.0298  better
       3  lsq                  3.4080  +0.0039     -0.0169  -0.0224 to -0.0115  0.016      0.0149  better

    bits  method                 loss     rise  difference  95 % interval           p  detectable  verdict
       2  nearest              3.7760  +0.3719           -  -                       -           -  baseline
       2  hqq                  3.7517  +0.3476     -0.0243  -0.0776 to +0.0289  0.242      0.1460  inside noise
       2  awq                  3.6636  +0.2594     -0.1125  -0.1569 to -0.0681  0.014      0.1217  better
       2  gptq                 3.5519  +0.1478     -0.2241  -0.3077 to -0.1405  0.014      0.2292  better
       2  nearest, symmetric   4.8863  +1.4822     +1.1103  +0.7414 to +1.4792  0.014      1.0116  worse
       2  nearest, trained on  3.7600  +0.3559           -  -                       -           -  baseline
       2  gptq, trained on     3.5250  +0.1209     -0.2350  -0.3158 to -0.1542  0.014      0.2216  better
       2  ste                  3.4925  +0.0884     -0.2675  -0.3467 to -0.1883  0.013      0.2171  better
       2  ste, symmetric       3.8970  +0.4928     +0.1370  +0.0620 to +0.2119  0.020      0.2055  worse
       2  lsq                  3.5003  +0.0962     -0.2597  -0.3345 to -0.1849  0.013      0.2051  better

In the order that is expected of 3 bits and less, the left to lose less (at 8 bits all are inside noise):

    bits  pair                    difference  95 % interval           p  detectable  verdict
       4  ste - gptq, trained on     +0.0025  -0.0035 to +0.0085  0.549      0.0140  inside noise
       4  lsq - gptq, trained on     +0.0154  +0.0088 to +0.0221  0.025      0.0155  worse
       4  gptq - awq                 -0.0042  -0.0098 to +0.0015  0.302      0.0132  inside noise
       4  awq - hqq                  -0.0026  -0.0041 to -0.0011  0.047      0.0036  better
       4  hqq - nearest              -0.0012  -0.0054 to +0.0031  0.549      0.0099  inside noise

    bits  pair                    difference  95 % interval            p  detectable  verdict
       3  ste - gptq, trained on     -0.0024  -0.0057 to +0.00089  0.207      0.0077  inside noise
       3  lsq - gptq, trained on     +0.0154  +0.0069 to +0.0239   0.041      0.0199  worse
       3  gptq - awq                 -0.0263  -0.0329 to -0.0197   0.005      0.0154  better
       3  awq - hqq                  +0.0057  -0.0039 to +0.0153   0.207      0.0224  inside noise
       3  hqq - nearest              -0.0163  -0.0258 to -0.0067   0.041      0.0224  better

    bits  pair                    difference  95 % interval           p  detectable  verdict
       2  ste - gptq, trained on     -0.0325  -0.0418 to -0.0232  0.006      0.0218  better
       2  lsq - gptq, trained on     -0.0247  -0.0319 to -0.0175  0.006      0.0169  better
       2  gptq - awq                 -0.1116  -0.1624 to -0.0609  0.012      0.1187  better
       2  awq - hqq                  -0.0882  -0.1074 to -0.0689  0.003      0.0450  better
       2  hqq - nearest              -0.0243  -0.0776 to +0.0289  0.242      0.1245  inside noise

At 8 bits nothing can be told apart. GPTQ (Frantar et al. 2022, arXiv:2210.17323) loses less than AWQ (Lin et al.
2023, arXiv:2306.00978) at 3 and 2 bits, AWQ less than HQQ at 4 and 2 bits; at 3 bits HQQ is not behind it. Training
through the rounding is worth more than GPTQ of the model that has seen as many tokens at 2 bits only; at 4 and 3
bits straight-through is inside noise of it, and LSQ (Esser et al. 2020, arXiv:1902.08153) is worse. That is not its
grid alone: straight-through with the same grid has the lower mean at 4 and 3 bits too (3.3750 and 3.4017; this pair
was not tested). At 2 bits that grid has the levels -2 to 1, and there learned steps are what counts: 3.5003, and
3.8970 where steps follow the largest number.
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
import small_models as small

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
    "ste": (config.StraightThrough(), False),
    "ste, symmetric": (config.StraightThrough(), True),
    "lsq": (config.Lsq(), True),
}
"""What the grid's steps follow, and whether it is symmetric: learned steps there are of such grids only."""
ONWARD = {"nearest, trained on": config.Nearest(), "gptq, trained on": config.Gptq()}
"""Of the model that has gone on without rounding for as many steps as those that are trained through it."""
BASELINES = dict.fromkeys(METHODS, "nearest") | dict.fromkeys((*ONWARD, *AWARE), "nearest, trained on")
"""What each is compared with: rounding to nearest what was trained for as long."""
EXPECTED = (
    ("ste", "gptq, trained on"),
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
    figure.legend(loc="outside right upper", frameon=False)


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
        small.save(asked.plot, lambda figure: draw(figure, found, whole), (6.5, 4))
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
