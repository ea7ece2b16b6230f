"""How few bits, and by which method: to nearest, HQQ, AWQ, GPTQ, and training through the rounding.

    python experiments/benchmarks/bits.py --plot bits.png

Four decoders of 193,000 parameters, one a seed, trained on 1.2 million tokens of Python's documentation and
sources (3.4019 nats a token of held-out text), each rounded in every way: the projections of the blocks, in groups
of 64 inputs; the embedding, which is the head too, is kept. GPTQ and AWQ look at 8,192 tokens. "ste"
(straight-through) and "lsq" go on from the same decoders for 150 steps of AdamW, from 3e-4 to 0, steps of the grid
and weights alike; without any rounding these 150 lead to 3.3657, and "trained on" is that model, rounded. Two
things were chosen by the held-out loss of seed 0, before the others were rounded: groups of 64 in place of 32,
with which 3 bits cost only 0.034, and of the rates 1e-4, 3e-4, 1e-3 and 3e-3 the one that was best without
rounding and at 3 bits (at 2 bits 1e-3 was better, by 0.016). LSQ learns the steps of symmetric grids, which have
no zero points: beside it stand others with such grids. "rise" is from the float32 model before the 150 steps;
differences are from nearest of what was trained for as long, and p is corrected for all eight of a width.

    bits  method                 loss     rise  difference  95 % interval             p  detectable  verdict
       8  nearest              3.4019  -0.0000           -  -                         -           -  baseline
       8  hqq                  3.4019  -0.0000    -1.1e-05  -0.00023 to +0.00021  1.000     0.00059  inside noise
       8  awq                  3.4019  +0.0000    +1.6e-05  -0.00028 to +0.00031  1.000     0.00081  inside noise
       8  gptq                 3.4019  +0.0000    +5.3e-05  -0.0002 to +0.00031   1.000      0.0007  inside noise
       8  nearest, symmetric   3.4019  +0.0001    +7.5e-05  -0.00017 to +0.00032  1.000     0.00068  inside noise
       8  nearest, trained on  3.3656  -0.0362           -  -                         -           -  baseline
       8  gptq, trained on     3.3657  -0.0362    +4.9e-05  -0.00023 to +0.00033  1.000     0.00076  inside noise
       8  ste                  3.3657  -0.0362    +4.3e-05  -0.0001 to +0.00019   1.000     0.00039  inside noise
       8  ste, symmetric       3.3659  -0.0360    +0.00029  +5e-05 to +0.00053    0.218     0.00066  inside noise
       8  lsq                  3.3677  -0.0342     +0.0021  +0.0011 to +0.0031    0.052      0.0027  inside noise

    bits  method                 loss     rise  difference  95 % interval            p  detectable  verdict
       4  nearest              3.4100  +0.0082           -  -                        -           -  baseline
       4  hqq                  3.4111  +0.0092     +0.0011  -0.00075 to +0.0029  0.490      0.0049  inside noise
       4  awq                  3.4090  +0.0072    -0.00099  -0.0064 to +0.0044   1.000      0.0147  inside noise
       4  gptq                 3.4064  +0.0046     -0.0036  -0.0078 to +0.00057  0.355      0.0115  inside noise
       4  nearest, symmetric   3.4176  +0.0157     +0.0075  +0.00047 to +0.0146  0.256      0.0194  inside noise
       4  nearest, trained on  3.3748  -0.0271           -  -                        -           -  baseline
       4  gptq, trained on     3.3715  -0.0303     -0.0033  -0.0081 to +0.0016   0.490      0.0133  inside noise
       4  ste                  3.3703  -0.0316     -0.0046  -0.0072 to -0.0019   0.096      0.0073  inside noise
       4  ste, symmetric       3.3736  -0.0283     -0.0012  -0.0081 to +0.0056   1.000      0.0189  inside noise
       4  lsq                  3.3815  -0.0204     +0.0066  +0.0011 to +0.0122   0.220      0.0152  inside noise

    bits  method                 loss     rise  difference  95 % interval           p  detectable  verdict
       3  nearest              3.4545  +0.0526           -  -                       -           -  baseline
       3  hqq                  3.4470  +0.0452     -0.0074  -0.0227 to +0.0078  0.219      0.0419  inside noise
       3  awq                  3.4441  +0.0422     -0.0104  -0.0175 to -0.0032  0.058      0.0197  inside noise
       3  gptq                 3.4236  +0.0217     -0.0309  -0.0428 to -0.0190  0.026      0.0325  better
       3  nearest, symmetric   3.4920  +0.0902     +0.0376  +0.0274 to +0.0477  0.011      0.0279  worse
       3  nearest, trained on  3.4212  +0.0193           -  -                       -           -  baseline
       3  gptq, trained on     3.3871  -0.0148     -0.0341  -0.0511 to -0.0171  0.035      0.0466  better
       3  ste                  3.3873  -0.0146     -0.0339  -0.0492 to -0.0186  0.035      0.0420  better
       3  ste, symmetric       3.4015  -0.0004     -0.0197  -0.0334 to -0.0061  0.058      0.0374  inside noise
       3  lsq                  3.4040  +0.0022     -0.0172  -0.0250 to -0.0093  0.035      0.0215  better

    bits  method                 loss     rise  difference  95 % interval           p  detectable  verdict
       2  nearest              3.7569  +0.3551           -  -                       -           -  baseline
       2  hqq                  3.7525  +0.3507     -0.0044  -0.0826 to +0.0739  0.870      0.2146  inside noise
       2  awq                  3.6674  +0.2656     -0.0895  -0.1679 to -0.0111  0.072      0.2150  inside noise
       2  gptq                 3.5518  +0.1499     -0.2051  -0.2684 to -0.1419  0.009      0.1734  better
       2  nearest, symmetric   4.8967  +1.4949     +1.1398  +0.8132 to +1.4664  0.009      0.8956  worse
       2  nearest, trained on  3.7460  +0.3442           -  -                       -           -  baseline
       2  gptq, trained on     3.5212  +0.1193     -0.2248  -0.2876 to -0.1621  0.009      0.1721  better
       2  ste                  3.4863  +0.0844     -0.2598  -0.3282 to -0.1913  0.009      0.1876  better
       2  ste, symmetric       3.8942  +0.4923     +0.1482  +0.1024 to +0.1940  0.009      0.1256  worse
       2  lsq                  3.5024  +0.1006     -0.2436  -0.3038 to -0.1834  0.008      0.1650  better

In the order that is expected of 3 bits and less, the left to lose less (at 8 bits lsq loses 0.0020 more than GPTQ,
and the rest are inside noise):

    bits  pair                    difference  95 % interval            p  detectable  verdict
       4  ste - gptq, trained on     -0.0013  -0.0041 to +0.0015   0.480      0.0065  inside noise
       4  lsq - gptq, trained on     +0.0099  +0.0033 to +0.0166   0.089      0.0155  inside noise
       4  gptq - awq                 -0.0026  -0.0047 to -0.00051  0.116      0.0049  inside noise
       4  awq - hqq                  -0.0020  -0.0090 to +0.0049   0.480      0.0162  inside noise
       4  hqq - nearest              +0.0011  -0.00075 to +0.0029  0.480      0.0042  inside noise

    bits  pair                    difference  95 % interval           p  detectable  verdict
       3  ste - gptq, trained on    +0.00019  -0.0088 to +0.0092  0.951      0.0211  inside noise
       3  lsq - gptq, trained on     +0.0169  +0.0075 to +0.0264  0.042      0.0220  worse
       3  gptq - awq                 -0.0205  -0.0265 to -0.0145  0.008      0.0140  better
       3  awq - hqq                  -0.0029  -0.0144 to +0.0085  0.948      0.0268  inside noise
       3  hqq - nearest              -0.0074  -0.0227 to +0.0078  0.658      0.0357  inside noise

    bits  pair                    difference  95 % interval           p  detectable  verdict
       2  ste - gptq, trained on     -0.0349  -0.0490 to -0.0208  0.014      0.0330  better
       2  lsq - gptq, trained on     -0.0188  -0.0258 to -0.0118  0.014      0.0164  better
       2  gptq - awq                 -0.1157  -0.1481 to -0.0832  0.007      0.0758  better
       2  awq - hqq                  -0.0851  -0.1174 to -0.0528  0.014      0.0756  better
       2  hqq - nearest              -0.0044  -0.0826 to +0.0739  0.870      0.1830  inside noise

At 8 bits nothing is lost that can be told, but for what LSQ's steps cost beside GPTQ's. GPTQ (Frantar et al.
2022, arXiv:2210.17323) loses less than AWQ (Lin et al. 2023, arXiv:2306.00978) at 3 and 2 bits, AWQ less than
HQQ at 2 bits. Training through the rounding is worth more than GPTQ of the model that has seen as many tokens
at 2 bits only; at 3 bits straight-through is inside noise of it, and LSQ (Esser et al. 2020, arXiv:1902.08153)
is worse. At 2 bits its symmetric grid has the levels -2 to 1, and there learned steps are what counts: 3.5024,
and 3.8942 where steps follow the largest number. A run before this one, whose decoders came out at 3.4041 by
other rounding errors of training, said the same at 3 and 2 bits of GPTQ, AWQ and training; but there HQQ was
better than nearest at 3 bits, AWQ better than nearest at 3 and 2 and than HQQ at 4, and LSQ worse than GPTQ at
4, all of which are inside noise here: four decoders are few for such differences.

531 s on two cores.
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
