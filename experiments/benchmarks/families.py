"""The families that are exchanged, beside transformers: writes README's table from a run of the tests.

    python experiments/benchmarks/families.py           # runs every configuration and prints the table
    python experiments/benchmarks/families.py --write   # and puts it into README.md

Needs the extras test and parity. A run with a failure writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- families -->", "<!-- /families -->"
HEAD = (
    "| family | configurations | largest difference | of max(1, std) | smallest difference of a wrong model, "
    "of max(1, std) | reloaded |\n|---|---|---|---|---|---|\n"
)


class Collected:
    """What each test that passed has recorded."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keeps the properties of a test."""
        if report.when == "call" and report.passed and report.user_properties:
            self.records.append(dict(report.user_properties))


def table(records: list[dict[str, Any]]) -> str:
    """A row for each `model_type`: of the logits the worst configuration, of the controls the nearest.

    Raises ValueError where a family was compared and not reloaded, or the other way round.
    """
    logits, reloads = defaultdict(list), defaultdict(list)
    for one in records:
        (reloads if "reload" in one else logits)[one["model_type"]].append(one)
    lines = []
    for name in sorted(logits | reloads):
        found = logits[name]
        if len(found) != len(reloads[name]):
            raise ValueError(f"{name}: {len(found)} compared, {len(reloads[name])} reloaded")
        absolute = max(one["difference"] for one in found)
        relative = max(one["difference"] / one["unit"] for one in found)
        nearest = min(found, key=lambda one: one["apart"])
        (how,) = {one["reload"] for one in reloads[name]}
        lines.append(
            f"| `{name}` | {len(found)} | {absolute:.1e} | {relative:.1e} "
            f"| {nearest['apart']:.2g} ({nearest['control']}) | {how} |\n"
        )
    return HEAD + "".join(lines)


def put(text: str, block: str) -> str:
    """The text with another block between the markers. Raises ValueError where there are none."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{block}{END}{after}"


def main() -> None:
    """Runs the tests; prints or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    collected = Collected()
    tests = str(ROOT / "tests" / "interop" / "test_families.py")
    # The table itself is looked at by tests that this run is there to satisfy.
    words = [tests, "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), "-k", "logits or goes_out"]
    if status := pytest.main(words, plugins=[collected]):
        sys.exit(int(status))
    block = table(collected.records)
    if options.write:
        README.write_text(put(README.read_text(), block))
    print(block, end="")


if __name__ == "__main__":
    main()
