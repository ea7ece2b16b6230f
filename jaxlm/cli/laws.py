"""usage: jaxlm laws FILE.csv | RUN ... [--approach A] [--budget FLOPS ...] [--out FILE.svg] [--loss NAME]
                  [--parameters all|without_embedding] [--resamples N] [--seed S]

Fits scaling laws to runs and says which model a budget of FLOPs should train, with intervals of 90 % (errors
are drawn again, for a frontier whole runs), and how well each law predicts the runs of the largest budget
when it has not seen them.

  FILE.csv               columns parameters, tokens, loss, and where there are, flops and run (one name for
                         all rows of a training curve); without flops they are 6 N D
  RUN                    finished runs, by path or name in runs/, or a directory of them
  --approach A           projection, parametric, isoflop or envelope; all that the runs allow
  --budget 1e21          FLOPs to predict for, once or more; the largest there is, and ten times as much
  --out laws.svg         draw the runs and the fits
  --loss NAME            which number of a run's evaluations on held-out text: loss, or bits_per_byte
  --parameters all       what N counts of a run: all, or without_embedding (and without positions and head)
  --resamples 200        how often they are drawn for intervals
  --seed 0               of the draws
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.cli.generate import Parser
from jaxlm.cli.text import count, table
from jaxlm.config.errors import UsageError

if TYPE_CHECKING:
    from jaxlm.study.laws import Check, Fit, Fitted
    from jaxlm.study.laws.read import Data

LAW = ("E", "A", "alpha", "B", "beta")


def main(argv: list[str]) -> int:
    """Prints the tables, and draws. Returns the exit code."""
    parser = Parser(prog="jaxlm laws", add_help=False, allow_abbrev=False)
    parser.add_argument("words", metavar="FILE.csv|RUN", nargs="+")
    parser.add_argument("--approach", choices=("projection", "parametric", "isoflop", "envelope"))
    parser.add_argument("--budget", type=float, action="append", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--loss", default="loss")
    parser.add_argument("--parameters", choices=("all", "without_embedding"), default="all")
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    if bad := [one for one in asked.budget if not 0 < one < float("inf")]:
        raise UsageError(f"--budget {bad[0]}: expected a number of FLOPs")
    if asked.resamples < 20:
        raise UsageError(f"--resamples {asked.resamples}: an interval of 90 % needs 20 or more")
    if asked.out is not None and asked.out.suffix != ".svg":
        raise UsageError(f"--out {asked.out}: expected a name that ends with .svg")
    data = _data(asked.words, asked.parameters, asked.loss)
    points = data.points()
    budgets = asked.budget or [float(points.flops.max()), 10 * float(points.flops.max())]
    print(f"{len(points)} runs of {points.sizes()} sizes, {points.budgets().max() + 1} budgets. {data.about}.\n")
    fits, checks, missing = _fits(data, asked.approach, asked.resamples, asked.seed)
    print("\n\n".join([_laws(fits), _optima(fits, budgets), _held_out(checks), *missing]))
    if asked.out is not None:
        from jaxlm.runs.files import write_atomically
        from jaxlm.study.laws.plot import drawing

        write_atomically(asked.out, drawing(points, fits, asked.loss))
        print(f"\ndrawn in {asked.out}")
    return 0


def _data(words: list[str], which: str, loss: str) -> Data:
    from jaxlm.runs.ledger import find_run, run_directories
    from jaxlm.study.laws import read

    if any(word.endswith(".csv") for word in words):
        if len(words) > 1:
            raise UsageError(f"expected one .csv file, or runs; got {' '.join(words)}")
        if (which, loss) != ("all", "loss"):
            raise UsageError("--parameters and --loss are of runs: a .csv file has its own columns")
        return read.of_table(words[0])
    found = [path for word in words for path in run_directories(word) or [find_run(word)]]
    return read.of_runs(list(dict.fromkeys(found)), which, loss)


def _fits(
    data: Data, approach: str | None, resamples: int, seed: int
) -> tuple[dict[str, Fitted], dict[str, Check | str], list[str]]:
    """Fits and checks by approach, and why others are missing. Raises UsageError if the one asked for is."""
    from jaxlm.study.laws import APPROACHES, bootstrap, check

    fits: dict[str, Fitted] = {}
    checks: dict[str, Check | str] = {}
    missing = []
    for name, fit in APPROACHES.items():
        if approach not in (None, name):
            continue
        runs = data.curves if name == "envelope" else data.points()
        try:
            fits[name] = bootstrap(fit, runs, resamples, seed)
        except UsageError as error:
            if approach == name or name == "projection":
                raise
            missing.append(f"{name}: {error}")
            continue
        try:
            checks[name] = check(fit, runs, resamples, seed)
        except UsageError as error:
            checks[name] = str(error)
    return fits, checks, missing


def _laws(fits: dict[str, Fitted]) -> str:
    """Laws and exponents; a frontier has no A, alpha, B and beta."""
    rows = []
    for name, one in fits.items():
        numbers = [_with(one, lambda fit, key=key: getattr(fit, key, None)) for key in LAW]
        exponents = [_with(one, lambda fit, i=i: fit.exponents[i]) for i in (0, 1)]
        rows.append((name, *numbers, *exponents))
    return table(("approach", *LAW, "a: N ~ C^a", "b: D ~ C^b"), rows) + _without(fits)


def _without(fits: dict[str, Fitted]) -> str:
    """A line for each approach of whose draws some had no fit."""
    from jaxlm.study.laws import Law

    return "".join(
        f"\n{name}: {one.without} of {len(one.again) + one.without} draws had no "
        f"{'law' if isinstance(one.fit, Law) else 'frontier'}; intervals are of the others"
        for name, one in fits.items()
        if one.without
    )


def _optima(fits: dict[str, Fitted], budgets: list[float]) -> str:
    rows = []
    for flops in budgets:
        for name, one in fits.items():
            best = [lambda fit, c=flops, i=i: fit.optimum(c)[i] for i in range(3)]
            cells = (_with(one, best[0], count), _with(one, best[1], count), _with(one, best[2]))
            rows.append((f"{flops:.3g}", name, *cells))
    return table(("FLOPs", "approach", "best parameters", "tokens", "loss"), rows)


def _with(
    one: Fitted, value: Callable[[Fit], float | None], shown: Callable[[float], str] = "{:.4g}".format
) -> str:
    """A number and its interval."""
    whole = value(one.fit)
    if whole is None:
        return "-"
    low, high = one.interval(value)
    return f"{shown(whole)} ({shown(low)} to {shown(high)})"


def _held_out(checks: dict[str, Check | str]) -> str:
    rows = []
    for name, one in checks.items():
        if isinstance(one, str):
            rows.append((name, one, "", "", ""))
            continue
        low, high = (100 * each for each in one.interval)
        error = f"{100 * one.error:+.2f} % ({low:+.2f} to {high:+.2f})"
        rows.append(
            (name, f"{one.flops:.3g}, {one.beyond:.3g} x", f"{one.predicted:.4f}", f"{one.observed:.4f}", error)
        )
    fits = {name: one.fitted for name, one in checks.items() if not isinstance(one, str)}
    return table(("left out", "FLOPs, beyond the rest", "predicted", "observed", "error"), rows) + _without(fits)
