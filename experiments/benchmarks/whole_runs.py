"""Eight short runs from start to end: one after another, and in one program.

    python experiments/benchmarks/whole_runs.py [--steps 100 400] [--widths 32 64 128] [--runs 8]

Both ways are commands of a study, `jaxlm study experiments/ablations/positions.py --only rope`, without and with
`--together`: one process that starts, reads its cached tokens, compiles, trains 8 rows of 64 tokens a step,
evaluates once and saves. The first compiles every run, the second one program for all of them, on a device for each
core. They take turns; "x" is the throughput of the second beside that of the first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workers import at_least

STUDY, ARM = Path(__file__).parents[1] / "ablations" / "positions.py", "rope"
WIDTHS, STEPS, ROWS, LENGTH = (32, 64, 128), (100, 400), 8, 64


def words(width: int, steps: int, runs: int) -> list[str]:
    """The command of a study of small decoders."""
    heads = max(1, width // 32)
    fields = {
        "model.embed": width,
        "model.layers": 4,
        "model.block.attention.heads": heads,
        "model.block.attention.kv_heads": heads,
        "model.block.attention.head": width // heads,
        "model.block.mlp.width": 2 * width,
        "train.batch": ROWS,
        "train.length": LENGTH,
        "train.steps": steps,
        "where.every.evaluate": 0,
    }
    base = [f"--base.{name}={value}" for name, value in fields.items()]
    return ["study", str(STUDY), "--only", ARM, *base, "--seeds", *map(str, range(runs))]


def seconds(command: list[str], together: bool) -> float:
    """How long a command takes, in a directory of its own. Raises CalledProcessError where it fails."""
    more = ["--together"] if together else []
    environment = {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
    with tempfile.TemporaryDirectory() as room:
        start = time.perf_counter()
        whole = [sys.executable, "-m", "jaxlm", *command, *more, "--study-dir", f"{room}/study"]
        subprocess.run(whole, check=True, env=environment, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=at_least(1), nargs="+", default=STEPS)
    parser.add_argument("--widths", type=int, nargs="+", choices=(32, 64, 128, 256), default=WIDTHS)
    parser.add_argument("--runs", type=at_least(1), default=8)
    options = parser.parse_args()
    seconds(words(32, 2, 2), together=True)  # tokens are made once
    print("width  steps  in turn s  one program s     x", flush=True)
    for width in options.widths:
        for steps in options.steps:
            command = words(width, steps, options.runs)
            apart, one = (seconds(command, together) for together in (False, True))
            print(f"{width:5}{steps:7}{apart:11.1f}{one:15.1f}{apart / one:6.2f}", flush=True)


if __name__ == "__main__":
    main()
