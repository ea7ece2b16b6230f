"""The families that are exchanged, beside transformers: writes README's table from a run of the tests.

    python experiments/benchmarks/families.py           # runs every configuration and prints the table
    python experiments/benchmarks/families.py --write   # and puts it into README.md

Needs the extras test and parity. A run with a failure writes nothing.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

from tables import README, put, records

HEAD = (
    "| family | configurations | largest difference | of max(1, std) | smallest difference of a wrong model, "
    "of max(1, std) | reloaded |\n|---|---|---|---|---|---|\n"
)


def table(found: list[dict[str, Any]]) -> str:
    """A row for each `model_type`: of the logits the worst configuration, of the controls the nearest.

    Raises ValueError where a family was compared and not reloaded, or the other way round.
    """
    logits, reloads = defaultdict(list), defaultdict(list)
    for one in found:
        (reloads if "reload" in one else logits)[one["model_type"]].append(one)
    lines = []
    for name in sorted(logits | reloads):
        compared = logits[name]
        if len(compared) != len(reloads[name]):
            raise ValueError(f"{name}: {len(compared)} compared, {len(reloads[name])} reloaded")
        absolute = max(one["difference"] for one in compared)
        relative = max(one["difference"] / one["unit"] for one in compared)
        nearest = min(compared, key=lambda one: one["apart"])
        (how,) = {one["reload"] for one in reloads[name]}
        lines.append(
            f"| `{name}` | {len(compared)} | {absolute:.1e} | {relative:.1e} "
            f"| {nearest['apart']:.2g} ({nearest['control']}) | {how} |\n"
        )
    return HEAD + "".join(lines)


def main() -> None:
    """Runs the tests; prints or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    # The table itself is looked at by tests that this run is there to satisfy.
    block = table(records(["interop/test_families.py"], "-k", "logits or goes_out"))
    if options.write:
        README.write_text(put(README.read_text(), "families", block))
    print(block, end="")


if __name__ == "__main__":
    main()
