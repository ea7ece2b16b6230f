"""Plans beside measurements: what `jaxlm plan` says of a step, and what `jaxlm run` then measures.

    python experiments/benchmarks/planned.py --topology h100:1        # on one H100; needs jaxlm[cuda]

Each case is an experiment of `experiments/pretrain` with small data: planned without touching a device, then run
for 30 steps on those that are there. `--keep DIR` keeps the runs, with traces of two steps.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PRETRAIN = Path(__file__).parents[1] / "pretrain"
COMMON = "tokenizer:sentence_piece data:corpus --train.steps 30 --where.every.evaluate 1000"
WHOLE_MLP = "--where.remat query+key+value+attention+middle+gate+up --train.batch 12"
CASES = {
    "1B": ("llama32_1b", ""),
    "1B, nothing recomputed": ("llama32_1b", WHOLE_MLP),
    "4 layers of the 7B": ("llama2_7b", f"--model.layers 4 --where.mesh.fsdp 1 --where.flags {WHOLE_MLP}"),
}
"""Name -> experiment and changes to it."""


def jaxlm(*words: str) -> None:
    """A command; its output is shown where it fails."""
    done = subprocess.run([sys.executable, "-m", "jaxlm", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"jaxlm {' '.join(words)} ended with code {done.returncode}:\n{done.stdout}{done.stderr}")


def measured(case: str, topology: str, folder: Path) -> dict[str, dict[str, float]]:
    """Figure -> planned and measured."""
    name, changes = CASES[case]
    file, run = folder / f"{name}.py", folder / "run"
    shutil.copy(PRETRAIN / file.name, file)  # the plan is kept beside it
    words = [*COMMON.split(), *changes.split()]
    jaxlm("plan", str(file), "--topology", topology, "--save", *words)
    jaxlm("run", str(file), "--run-dir", str(run), "--profile", "20:22", *words)
    events = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    figures = [one["figures"] for one in events if one.get("event") == "planned"]
    if not figures:
        sys.exit(f"{case}: the run found no plan of its devices; is this {topology}?")
    return figures[-1]


def main() -> None:
    """Prints a line for each case and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", required=True, help="of the devices that are here, as in h100:1")
    parser.add_argument("--cases", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--keep", type=Path, help="directory for the runs")
    options = parser.parse_args()
    print(f"{'':26}{'figure':12}{'planned':>10}{'measured':>10}{'ratio':>8}")
    for case in options.cases:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.keep / case.replace(" ", "_").replace(",", "") if options.keep else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            for figure, pair in measured(case, options.topology, folder).items():
                planned, found = pair["planned"], pair["measured"]
                print(f"{case:26}{figure:12}{planned:10,.1f}{found:10,.1f}{found / planned:8.2f}", flush=True)


if __name__ == "__main__":
    main()
