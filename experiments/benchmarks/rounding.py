"""What rounding a model costs, by method and bits: one table, of the runs that `jaxlm quantize` makes.

    python experiments/benchmarks/rounding.py MODEL_OR_RUN [--only NAME ...] [--rotated] [--held-out 4] [OVERRIDES]

Every row is a run (`runs/...-rounded-HASH`): what has been done is read again. Perplexity is of held-out text of
the run's data, Python's documentation and sources for a model that was trained elsewhere; errors are
|x dW| / |x W|, the mean over all weights, of the last quarter of the calibration's rows.

Weights out of a file in few bits lie on its grid, which may suit one way of rounding more than another. With
`--rotated` every row rounds the model with its residual stream rotated (`quantization.rotation`): the same
function, by other numbers. How many of them are further than half a step of 4 bits in groups of 32 from where they
were is printed, and |w - nearest| / |w| of the 16 numbers that lie evenly between the ends of each group (Q4_1).
"""

import argparse
import os
import time
from statistics import mean
from typing import Any

import jax.numpy as jnp

from jaxlm import config
from jaxlm.cli import models
from jaxlm.cli.quantize import request
from jaxlm.cli.text import table
from jaxlm.config.quantization import groups, levels
from jaxlm.layers.weights import weights_of
from jaxlm.quantize import grid
from jaxlm.quantize.calibrate import matrix
from jaxlm.quantize.rotate import moved

GROUPS = ("--quantization.rules.0.format.symmetric", "false", "--quantization.rules.0.format.group", "64")
METHODS = ("nearest", "hqq", "gptq", "awq")
SMOOTH = ("quantization.smoothing:smooth", "--quantization.smoothing.alpha", "0.85")
DYNAMIC = ("quantization.method:nearest", "quantization.activations:dynamic")
STATIC = ("quantization.method:nearest", "quantization.activations:static")
DOWN = (
    *("--quantization.rules.0.targets", "down$", "quantization.rules.0.activations:dynamic"),
    *("--quantization.rules.1.format.bits", "8"),
)
"""What leaves an MLP's middle is as large in one token as nowhere else."""
TABLE = ("--quantization.rules.1.targets", "^embedding$")
ROTATED = ("quantization.rotation:rotated",)
VARIANTS = {
    "int8": ("quantization.method:nearest",),
    "W8A8 dynamic": DYNAMIC,
    "W8A8 dynamic, smooth": (*DYNAMIC, *SMOOTH),
    "W8A8 dynamic, smooth, table": (*DYNAMIC, *SMOOTH, *TABLE),
    "W8A8 static": STATIC,
    "W8A8 static, smooth": (*STATIC, *SMOOTH),
    "W8A8 static but for down": (*STATIC, *DOWN),
    "W8A8 static but for down, smooth": (*STATIC, *DOWN, *SMOOTH),
    **{
        f"{bits} bits {method}": (
            f"quantization.method:{method}",
            "--quantization.rules.0.format.bits",
            bits,
            *GROUPS,
        )
        for bits in "43"
        for method in METHODS
    },
}
KEPT = "nothing rounded"
OF_ROTATED = {
    KEPT: ("quantization.method:nearest", "quantization.rules.0.format:kept"),
    "int8": VARIANTS["int8"],
    **{name: words for name, words in VARIANTS.items() if "bits" in name and "hqq" not in name},
}
STORED = config.Integers(4, symmetric=False, group=32)
"""As Q4_1 has it, but that there a group's least number need be no multiple of its step."""
COLUMNS = ("variant", "size", "perplexity", "change", "mean error", "seconds")


def off_grid(model: Any) -> float:
    """How far the layers' numbers are from a grid of `STORED`, of their size; each group's ends are on it."""
    squares = jnp.zeros(2)
    for layer in model.blocks.layers():
        for one in map(matrix, weights_of(layer).values()):
            grouped = grid.by_group(one, groups(STORED, one.shape[0]))
            low, high = jnp.min(grouped, axis=1, keepdims=True), jnp.max(grouped, axis=1, keepdims=True)
            step = (high - low) / levels(STORED)[1]
            error = grouped - low - step * jnp.round((grouped - low) / step)
            squares += jnp.stack([jnp.sum(jnp.square(error)), jnp.sum(jnp.square(one))])
    return float(jnp.sqrt(squares[0] / squares[1]))


def main() -> None:
    """Prints a row for each variant, then all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="in place of all, or with --rotated of some")
    parser.add_argument("--rotated", action="store_true", help="with the residual stream rotated before")
    parser.add_argument("--held-out", type=int, default=4)
    options, words = parser.parse_known_args()
    from jaxlm.train.load import load_run
    from jaxlm.train.quantized import quantize

    run, rows, first = models.run_of(options.model, ["quantize"]), [], None
    chosen = OF_ROTATED if options.rotated else VARIANTS
    if options.only:
        chosen = {name: VARIANTS[name] for name in options.only}
    if options.rotated:
        chosen = {KEPT: OF_ROTATED[KEPT], **chosen}
    for name, own in chosen.items():
        start = time.monotonic()
        asked = request(run, {}, [*own, *(ROTATED if options.rotated else ()), *words])
        path, outcome = quantize(asked, run_dir=None, most=options.held_out, say=lambda _: None)
        first = first or outcome
        if name == KEPT:
            before, rotated = load_run(run)[0], load_run(str(path))[0]
            print(
                f"{100 * moved(before, rotated, STORED):.1f} % of the layers' numbers are further than half a step "
                f"from where they were; {off_grid(before):.4f} off the grid before, {off_grid(rotated):.4f} after"
            )
        after, errors = outcome.after, [one.error for one in outcome.weights]
        change = 100 * (after.perplexity / outcome.before.perplexity - 1)
        size = after.bytes / outcome.before.bytes
        seconds = f"{time.monotonic() - start:.0f}"
        error = f"{mean(errors):.4f}" if errors else "-"
        rows.append((name, f"{size:.3f}", f"{after.perplexity:.3f}", f"{change:+.2f} %", error, seconds))
        print(table(COLUMNS, rows[-1:]), flush=True)
    print(
        f"\nas it is: perplexity {first.before.perplexity:.3f} of {first.tokens:,} tokens, {os.cpu_count()} cores"
    )
    print(table(COLUMNS, rows))


if __name__ == "__main__":
    main()
