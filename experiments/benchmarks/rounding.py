"""What rounding a model costs, by method and bits: one table, of the runs that `jaxlm quantize` makes.

    python experiments/benchmarks/rounding.py MODEL_OR_RUN [--only NAME ...] [--held-out 4] [OVERRIDES]

Every row is a run (`runs/...-rounded-HASH`): what has been done is read again. Perplexity is of held-out text of
the run's data, Python's documentation and sources for a model that was trained elsewhere; errors are
|x dW| / |x W|, the mean over all weights, of the last quarter of the calibration's rows.
"""

import argparse
import os
import time
from statistics import mean

from jaxlm.cli import models
from jaxlm.cli.quantize import request
from jaxlm.cli.text import table

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--held-out", type=int, default=4)
    options, words = parser.parse_known_args()
    from jaxlm.train.quantized import quantize

    run, rows, first = models.run_of(options.model, ["quantize"]), [], None
    for name in options.only:
        start = time.monotonic()
        asked = request(run, {}, [*VARIANTS[name], *words])
        _, outcome = quantize(asked, run_dir=None, most=options.held_out, say=lambda _: None)
        first = first or outcome
        after, errors = outcome.after, [one.error for one in outcome.weights]
        change = 100 * (after.perplexity / outcome.before.perplexity - 1)
        size = after.bytes / outcome.before.bytes
        seconds = f"{time.monotonic() - start:.0f}"
        rows.append(
            (name, f"{size:.3f}", f"{after.perplexity:.3f}", f"{change:+.2f} %", f"{mean(errors):.4f}", seconds)
        )
        print(table(("variant", "size", "perplexity", "change", "mean error", "seconds"), rows[-1:]), flush=True)
    print(
        f"\nas it is: perplexity {first.before.perplexity:.3f} of {first.tokens:,} tokens, {os.cpu_count()} cores"
    )
    print(table(("variant", "size", "perplexity", "change", "mean error", "seconds"), rows))


if __name__ == "__main__":
    main()
