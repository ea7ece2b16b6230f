"""Tables of README.md that are written from a run of the tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


class Collected:
    """What each test that passed has recorded."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keeps the properties of a test."""
        if report.when == "call" and report.passed and report.user_properties:
            self.records.append(dict(report.user_properties))


def records(tests: list[str], *words: str) -> list[dict[str, Any]]:
    """The properties of tests, files below tests/, that all pass; else the process ends with pytest's status."""
    collected = Collected()
    files = [str(ROOT / "tests" / name) for name in tests]
    if status := pytest.main(
        [*files, "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), *words], plugins=[collected]
    ):
        sys.exit(int(status))
    return collected.records


def put(text: str, name: str, block: str) -> str:
    """The text with another block between the markers of a name. Raises ValueError where there are none."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{block}{end}{after}"
