"""How far can fits of scaling laws be trusted? On runs of a known law, and on those of Hoffmann et al. 2022.

    python experiments/benchmarks/laws.py                          # three minutes
    python experiments/benchmarks/laws.py --simulations 100 --resamples 120 --figure svg_extracted_data.csv

Prints what each approach finds of the published law without noise, how many of the simulations' intervals of 90 %
hold the true exponents (0.7 % log-normal noise), and the control: a fit without E. `--figure` is the table of runs
that Besiroglu et al. 2024 (arXiv:2404.10102) read off figure 4 (github.com/epoch-research/analyzing-chinchilla,
data/svg_extracted_data.csv); what their notebook fits to it stands beside.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from jaxlm.cli.text import table
from jaxlm.study.laws import PUBLISHED, Fit, Law, Points, bootstrap, envelope, isoflop, parametric, projection
from jaxlm.study.laws.simulate import BUDGETS, curves, isoflops, ladder, noisy

BUDGET = 5.76e23
"""FLOPs of Gopher and Chinchilla."""
DESIGNS = {
    "7 budgets of 9 sizes": isoflops(),
    "5 budgets of 7 sizes": isoflops(budgets=BUDGETS[:5], sizes=7, width=4),
    "7 sizes at 6 ratios": ladder(),
    "10 sizes at 6 ratios": ladder(sizes=10),
}
FITS = {"projection": projection.fit, "parametric": parametric.fit, "isoflop": isoflop.fit}
BESIROGLU = Law(E=1.8172, A=482.01, alpha=0.3478, B=2085.43, beta=0.3658)


def row(name: str, fit: Fit) -> tuple[str, ...]:
    """The numbers of a fit, and its best model of `BUDGET`."""
    numbers = [f"{getattr(fit, key):.4g}" if hasattr(fit, key) else "-" for key in ("E", "A", "alpha", "B", "beta")]
    best = fit.optimum(BUDGET)
    return name, *numbers, f"{fit.exponents.a:.4f}", f"{best.parameters / 1e9:.1f}", f"{best.loss:.4f}"


HEADER = ("fit", "E", "A", "alpha", "B", "beta", "a", f"best of {BUDGET:.3g}, G", "loss")


def exact() -> str:
    """The published law found again, without noise."""
    rows = [row("published", PUBLISHED)]
    for width, drift in ((4, 0.0), (16, 0.0), (4, 1.0)):
        points = isoflops(width=width, drift=drift)
        of = f", sizes / {width} to * {width}" + (", drifting" if drift else "")
        rows += [row(name + of, fit(points)) for name, fit in FITS.items()]
    rows.append(row("projection without E", projection.fit(isoflops(), floor=False)))
    rows += [row(f"envelope, {sizes} sizes", envelope.fit(curves(sizes=sizes))) for sizes in (8, 12, 24)]
    return table(HEADER, rows)


def covered(fit, points: Points, simulations: int, resamples: int) -> list[int]:
    """How many intervals hold the true alpha, beta and a."""
    values = (lambda one: one.alpha, lambda one: one.beta, lambda one: one.exponents.a)
    hits = [0, 0, 0]
    for i in range(simulations):
        found = bootstrap(fit, noisy(points, np.random.default_rng(1000 + i)), resamples, i)
        for at, value in enumerate(values):
            if at < 2 and not isinstance(found.fit, Law):
                continue
            low, high = found.interval(value)
            hits[at] += low <= value(PUBLISHED) <= high
    return hits


def coverage(simulations: int, resamples: int) -> str:
    """Hits by approach and design."""
    rows = []
    for design, points in DESIGNS.items():
        for name, fit in FITS.items():
            if name == "isoflop" and "ratios" in design:
                continue
            hits = covered(fit, points, simulations, resamples)
            shown = [f"{hits[i]}" if name != "isoflop" or i == 2 else "-" for i in range(3)]
            rows.append((name, design, *shown))
            print(f"  {name}, {design}: done", flush=True)
    return table((f"intervals that hold the truth, of {simulations}", "runs", "alpha", "beta", "a"), rows)


def figure(path: Path) -> str:
    """The runs of the figure without the five of the highest loss, as in the notebook."""
    with open(path) as file:
        cells = [[row["Model Size"], row["Training FLOP"], row["loss"]] for row in csv.DictReader(file)]
    n, c, loss = np.array([[float(cell) for cell in row] for row in cells if all(row)]).T
    kept = loss < np.sort(loss)[-5]
    points = Points(n, c / (6 * n), c, loss)[kept]
    rows = [row("published", PUBLISHED), row("Besiroglu et al.", BESIROGLU)]
    rows += [row(f"{name}, {len(points)} runs", fit(points)) for name, fit in FITS.items() if name != "isoflop"]
    return table(HEADER, rows)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=20)
    parser.add_argument("--resamples", type=int, default=60)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    print(exact() + "\n", flush=True)
    if options.figure is not None:
        print(figure(options.figure) + "\n", flush=True)
    print(coverage(options.simulations, options.resamples))


if __name__ == "__main__":
    main()
