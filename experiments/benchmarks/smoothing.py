"""SmoothQuant's curve over alpha, on outliers that are planted (Xiao et al. 2022, arXiv:2211.10438, figure 10).

    python experiments/benchmarks/smoothing.py --plot smoothing.png
    python experiments/benchmarks/smoothing.py MODEL_OR_RUN --forms "W8A8 dynamic" --alphas 0.5 0.85 --seeds 3

Small models grow few outliers (arXiv:2208.07339, figure 3). These are planted: in four decoders of 193,000
parameters, one a seed, 4 of the 64 channels behind every norm are made 30 times as large, by the norm's scale, and
the rows of the weights that read them as much smaller. Held-out loss stays within 5.9e-8 of 3.4041 nats. Ranges
are found on 8,192 tokens; "rise" is from float32, differences are from rounding what has not been smoothed.

    rounding     alpha    loss     rise  difference  95 % interval           p  detectable  verdict
    W8A8 static  none   3.4695  +0.0654           -  -                       -           -  baseline
    W8A8 static  0      3.4055  +0.0014     -0.0640  -0.0807 to -0.0472  0.006      0.0392  better
    W8A8 static  0.25   3.4055  +0.0014     -0.0640  -0.0803 to -0.0476  0.006      0.0382  better
    W8A8 static  0.5    3.4055  +0.0014     -0.0640  -0.0807 to -0.0473  0.006      0.0390  better
    W8A8 static  0.75   3.4054  +0.0013     -0.0641  -0.0812 to -0.0470  0.006      0.0399  better
    W8A8 static  1      3.4056  +0.0015     -0.0639  -0.0802 to -0.0476  0.006      0.0381  better

    rounding      alpha    loss     rise  difference  95 % interval       p       detectable  verdict
    W4A4 dynamic  none   6.3072  +2.9030           -  -                   -                -  baseline
    W4A4 dynamic  0      3.4642  +0.0601     -2.8430  -3.0203 to -2.6656  <0.001      0.4147  better
    W4A4 dynamic  0.25   3.4604  +0.0563     -2.8467  -3.0277 to -2.6657  <0.001      0.4232  better
    W4A4 dynamic  0.5    3.4589  +0.0547     -2.8483  -3.0323 to -2.6643  <0.001      0.4303  better
    W4A4 dynamic  0.75   3.4619  +0.0577     -2.8453  -3.0325 to -2.6581  <0.001      0.4376  better
    W4A4 dynamic  1      3.4603  +0.0562     -2.8469  -3.0306 to -2.6632  <0.001      0.4294  better

Without outliers and without smoothing the rise is 0.0013 and 0.0560: whatever alpha is, smoothing takes the
outliers away, and with them what they cost. There is no curve, and of outliers like these there can be none: with
an x that is f times as large, and a W as much smaller, s = max|x|^alpha / max|W|^(1 - alpha) (equation 4) is f
times as large for every alpha, and the smoothed model that of the model before (tested in tests/experiments). What
figure 10 shows is of outliers that training made, whose weights need not be small; there are none here. Six
roundings were looked at on seed 0, four of them without outliers and on 10 batches of text; W4A4 dynamic was kept
because its loss had a valley at 0.5 there. Alphas were not tested against each other. With a model's name the
channels are drawn anew for each seed, and differences are over these draws.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import small_models as small

from jaxlm import config
from jaxlm.cli import environment, models
from jaxlm.cli.text import table
from jaxlm.quantize.methods import choose
from jaxlm.quantize.smooth import plant_outliers
from jaxlm.runs.ledger import find_run

ALPHAS: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
NONE = "none"
FORMS = {
    "W8A8 static": (config.Integers(8, group=-1), config.Static(8)),
    "W4A4 dynamic": (config.Integers(4), config.Dynamic(4)),
    "W8A8 dynamic": (config.Integers(8), config.Dynamic(8)),
}
"""Static: one step for a matrix, and one for an activation in all text. Dynamic: one for each output, and token."""
SHOWN = ("W8A8 static", "W4A4 dynamic")
CALIBRATION = 8
"""Batches that ranges are found on: 8,192 tokens of the small models."""
CHANNELS, FACTOR = 4, 30.0
Losses = dict[str, small.Values]
Smoothing = config.NoSmoothing | config.Smooth


def arms(alphas: Sequence[float] = ALPHAS) -> dict[str, Smoothing]:
    """By name: without, and with each alpha."""
    return {NONE: config.NoSmoothing(), **{f"{alpha:g}": config.Smooth(alpha) for alpha in alphas}}


def loss(form: str, subject: small.Subject, model: Any, smoothing: Smoothing = config.NoSmoothing()) -> float:
    """Of held-out text, of a model whose weights and activations are rounded."""
    format, activations = FORMS[form]
    asked = config.Rounded((config.Rule(format=format),), activations, smoothing=smoothing)
    rounded, _ = choose(model, subject.rows, subject.call, asked, batch=8, say=small.quiet)
    return subject.loss(rounded)


def losses(form: str, subjects: Sequence[small.Subject], planted: Sequence[Any], alphas: Sequence[float]) -> Losses:
    """Of every arm in one form, in the order of the models."""
    return {
        name: np.array([loss(form, *pair, smoothing) for pair in zip(subjects, planted, strict=True)])
        for name, smoothing in arms(alphas).items()
    }


def lines(form: str, found: Losses, whole: small.Values) -> list[tuple[str, ...]]:
    """A line for each arm, compared with rounding what has not been smoothed."""
    verdicts = small.judged(found, NONE)
    return [
        (form, name, f"{values.mean():.4f}", f"{np.mean(values - whole):+.4f}", *small.cells(verdicts.get(name)))
        for name, values in found.items()
    ]


def draw(figure: Any, found: dict[str, Losses], clean: dict[str, small.Values], whole: small.Values) -> None:
    """What rounding adds to the loss by alpha: means over models, with the least and the largest."""
    for axes, (form, curve) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        alphas = [name for name in curve if name != NONE]
        middle, low, high = zip(*(small.limits(curve[name] - whole) for name in alphas), strict=True)
        x = list(map(float, alphas))
        axes.plot(x, middle, "-o", color="C0", markersize=3, label="smoothed")
        axes.fill_between(x, low, high, color="C0", alpha=0.2, linewidth=0)
        axes.axhline(np.mean(curve[NONE] - whole), color="C3", label="not smoothed")
        axes.axhline(np.mean(clean[form] - whole), color="0.5", linestyle="--", label="without planted outliers")
        axes.set_yscale("symlog", linthresh=0.02)
        axes.set_ylim(bottom=1.1 * min(0.0, *low, np.mean(clean[form] - whole)))
        axes.set(title=form, xlabel="alpha", ylabel="held-out loss less that of float32 (nats)")
        axes.legend(frameon=False)


def taken(asked: argparse.Namespace) -> list[small.Subject]:
    """The models that are rounded: the named one, once for each draw of channels, or small ones of all seeds."""
    if asked.model:
        run = find_run(models.run_of(asked.model, sys.argv[1:]))
        return [small.subject(run, asked.calibration, asked.held_out)] * asked.seeds
    bases = [small.base(seed, asked.base_steps) for seed in range(asked.seeds)]
    runs = small.trained(bases, asked.runs, small.data_of(bases[0]))
    return [small.subject(run, asked.calibration, asked.held_out) for run in runs]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", nargs="?", help="a finished run or a model, in place of small ones that are trained"
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--channels", type=int, default=CHANNELS, help="behind every norm")
    parser.add_argument("--factor", type=float, default=FACTOR, help="by which they are larger")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=SHOWN)
    parser.add_argument("--alphas", type=float, nargs="+", default=ALPHAS)
    parser.add_argument("--calibration", type=int, default=CALIBRATION, help="batches that ranges are found on")
    parser.add_argument("--held-out", type=int, default=1000, help="batches at most")
    parser.add_argument("--base-steps", type=int, default=small.STEPS, help="before anything is rounded")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    asked = parser.parse_args()
    environment.prepare(sys.argv[1:], runs=1 if asked.model else asked.seeds)
    began, subjects = time.monotonic(), taken(asked)
    whole = np.array([one.loss(one.model) for one in subjects])
    planted = [plant_outliers(one.model, asked.channels, asked.factor, seed) for seed, one in enumerate(subjects)]
    same = [one.loss(model) for one, model in zip(subjects, planted, strict=True)]
    print(
        f"loss {whole.mean():.4f}, with outliers planted within {np.abs(same - whole).max():.1e} of it", flush=True
    )
    found, clean = {}, {}
    for form in asked.forms:
        found[form] = losses(form, subjects, planted, asked.alphas)
        clean[form] = np.array([loss(form, one, one.model) for one in subjects])
        print(f"\n{table(('rounding', 'alpha', 'loss', 'rise', *small.JUDGED), lines(form, found[form], whole))}")
        print(f"without outliers and smoothing the rise is {np.mean(clean[form] - whole):+.4f}", flush=True)
    if asked.plot:
        small.save(asked.plot, lambda figure: draw(figure, found, clean, whole), (7, 3.2))
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
