"""Every planned model on its chips: the compiler's estimates, beside what MaxText published for the same.

    python experiments/benchmarks/plans.py                     # the committed plans as a table
    python experiments/benchmarks/plans.py --check [NAME ...]  # plan again and compare; needs the extra tpu
    python experiments/benchmarks/plans.py --write [NAME ...]  # plan again and keep, as jaxlm plan --save

Plans lie in experiments/pretrain/plans. All figures are estimates of a compiler for chips that were not there: a
floor of the utilization at default flags, uncalibrated with the vmem flags. `--check` fails where memory, traffic
or the estimated time of a step is more than 1 % above the committed plan.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from jaxlm.planning.kept import kept
from jaxlm.runs.plans import DIRECTORY, read, write

PRETRAIN = Path(__file__).parents[1] / "pretrain"
PLANS = PRETRAIN / DIRECTORY
UP_AGAIN = ("--where.remat", "query+key+value+attention+middle+gate")
GPU = ("--where.flags",)
FAMILIES = (
    "gpt2-1.5b", "opt-6.7b", "bloom-7b1", "gpt-j-6b", "pythia-6.9b", "codegen-6b", "falcon-7b", "mistral-7b",
    "qwen2-7b", "qwen3-8b", "qwen3-moe-30b-a3b", "gemma-7b", "gemma2-9b", "gemma3-12b", "phi3-mini", "olmo2-7b",
    "starcoder-15b", "starcoder2-3b",
)  # fmt: skip
"""A size of every family that has no experiment of its own."""
CHANGES = {"gpt2-1.5b": ("--train.length", "1024", "--train.batch", "1024")}
"""Shorter rows for a model without positions for 2048 tokens."""
ATTENTION = ("--where.remat", "query+key+value+attention")
CASES: dict[str, tuple[str, ...]] = {
    "llama2_7b-v5p-64": ("llama2_7b.py", "--topology", "v5p:4x4x4"),
    "llama2_7b-v5p-64-vmem": ("llama2_7b.py", "--topology", "v5p:4x4x4", "--where.flags", "async_gathers", "vmem"),
    "llama2_7b-v5e-256": ("llama2_7b.py", "--topology", "v5e:16x16", *UP_AGAIN),
    "llama2_7b-h100-8": (
        "llama2_7b.py", "--topology", "h100:8", "--where.mesh.fsdp", "8", "--train.batch", "32", *GPU
    ),
    "llama2_7b-v6e-256": ("llama2_7b.py", "--topology", "v6e:16x16", "--train.batch", "512", *UP_AGAIN),
    "llama2_13b-v5p-64": ("llama2_13b.py", "--topology", "v5p:4x4x4"),
    "llama2_13b-v6e-256": (
        "llama2_13b.py", "--topology", "v6e:16x16", "--where.mesh.tensor", "2", "--where.mesh.fsdp", "16"
    ),
    "llama2_70b-v6e-256": (
        "llama2_70b.py", "--topology", "v6e:16x16", "--train.batch", "256", "--where.micro_batches", "4",
        "--where.mesh.tensor", "4", "--where.mesh.fsdp", "32"
    ),
    "llama2_70b-v5p-512": ("llama2_70b.py", "--topology", "v5p:8x8x8"),
    "llama2_70b-h100-64": ("llama2_70b.py", "--topology", "h100:64", "--train.batch", "64", *ATTENTION, *GPU),
    "llama32_1b-h100-1": ("llama32_1b.py", "--topology", "h100:1"),
    "llama3_8b-v6e-256": ("llama3_8b.py", "--topology", "v6e:16x16"),
    "llama3_405b-v5p-512": ("llama3_405b.py", "--topology", "v5p:8x8x8"),
    "gpt3_175b-v5p-512": ("gpt3_175b.py", "--topology", "v5p:8x8x8"),
    "jurassic1_178b-v5p-512": ("jurassic1_178b.py", "--topology", "v5p:8x8x8"),
    "mixtral_8x7b-v5p-64": ("mixtral_8x7b.py", "--topology", "v5p:4x4x4"),
    "llama2_7b_100k-v5p-64": ("llama2_7b_100k.py", "--topology", "v5p:4x4x4"),
    "llama2_7b_100k-h100-64": ("llama2_7b_100k.py", "--topology", "h100:64", *GPU),
    "encoder-bert-large-v5e-16": (
        "encoder.py", "--topology", "v5e:4x4", "model:bert-large", "--where.mesh.fsdp", "4",
        "--where.micro_batches", "4"
    ),
    "encoder_decoder-t5-11b-v5e-256": (
        "encoder_decoder.py", "--topology", "v5e:16x16", "model:t5-11b", "--where.mesh.tensor", "8",
        "--where.mesh.fsdp", "8", "--where.micro_batches", "4", *UP_AGAIN
    ),
    "decoder-rwkv4-14b-v5p-64": (
        "decoder.py", "--topology", "v5p:4x4x4", "model:rwkv4-14b", "--where.mesh.fsdp", "16", "--where.remat",
        "dots", "--where.micro_batches", "2"
    ),
} | {
    f"decoder-{name}-v5p-64": ("decoder.py", "--topology", "v5p:4x4x4", f"model:{name}", *CHANGES.get(name, ()))
    for name in FAMILIES
}  # fmt: skip
"""Name of a plan -> the words of `jaxlm plan`."""

PUBLISHED = {
    "llama2_70b-v5p-512": 65.4,
    "llama2_7b-h100-8": 49.7,
    "llama3_8b-v6e-256": 45.5,
    "mixtral_8x7b-v5p-64": 52.6,
}
"""MFU in percent that MaxText measured for the model on the chip: its docs/reference/models/tiering.md (70B on 512
v5p, Llama 3.1 8B on 256 v6e with rows of 8192, Mixtral on 256 v5p)
and its configs/gpu/a3/llama_2_7b (8 H100). For LLaMA 2 7B on 64 v5p chips nothing is published; its recipe comes to
54.9 % by the method used here, 70.0 % with the vmem flag."""

LOWER = ("step ms", "peak GiB", "exposed GiB", "gathered GiB", "all-reduced in the layer loop GiB")
"""Figures that may not grow."""
SLACK = 1.01


def plan(words: tuple[str, ...]) -> dict[str, Any]:
    """Compiles one plan in a process of its own; what of it is kept."""
    experiment, *rest = words
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "plan.json"
        command = [sys.executable, "-m", "jaxlm", "plan", str(PRETRAIN / experiment), *rest, "--json", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        found = json.loads(path.read_text())
    return kept(found, ["jaxlm", "plan", f"experiments/pretrain/{experiment}", *rest])


def grown(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What is worse than it was."""
    return [f"{name}: {old[name]} -> {new[name]}" for name in LOWER if new[name] > SLACK * old[name] + 0.01]


def committed() -> dict[str, dict[str, Any]]:
    """The plans that are kept, by name."""
    return {path.stem: read(path) for path in sorted(PLANS.glob("*.json"))}


def table(plans: dict[str, dict[str, Any]]) -> str:
    """A line for each plan."""
    columns = f"{'MFU %':>7}{'MaxText':>8}{'step ms':>9}{'exposed':>9}{'peak':>7}{'of':>7}{'compile s':>11}"
    lines = [f"{'plan':34}{columns}"]
    for name, one in plans.items():
        published = PUBLISHED.get(name)
        lines.append(
            f"{name:34}{one['mfu']:7.1f}"
            f"{'-' if published is None else f'{published:.1f}':>8}{one['step ms']:9,.0f}"
            f"{one['exposed GiB']:9.2f}{one['peak GiB']:7.1f}{one['memory GiB']:7.1f}{one['compile s']:11.0f}"
        )
    return "\n".join(
        [*lines, "exposed, peak and memory in GiB of one device; MaxText's MFU as published, measured"]
    )


def main() -> None:
    """Prints the table, or plans again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("name", nargs="*", help="a plan; all of them by default")
    options = parser.parse_args()
    unknown = [name for name in options.name if name not in CASES]
    if unknown:
        parser.error(f"no plan {unknown[0]}: there are {', '.join(CASES)}")
    kept, worse = committed(), []
    for name in (options.name or CASES) if options.check or options.write else ():
        new = plan(CASES[name])
        if options.write:
            write(new, PLANS, name)
        elif name not in kept:
            worse.append(f"{name}: there is no committed plan")
        else:
            worse += [f"{name}: {what}" for what in grown(kept[name], new)]
        print(f"{name}: MFU {new['mfu']} %, step {new['step ms']} ms", flush=True)
    print(table(committed()))
    if worse:
        sys.exit("worse than the committed plans:\n" + "\n".join(worse))


if __name__ == "__main__":
    main()
