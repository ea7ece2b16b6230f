"""Short runs of the tiny experiment in this process, on its eight devices."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.drills.drill import text

SHORT = ("--train.steps", "6", "--where.micro_batches", "1", "--where.every.log", "2", "--samples.prompts")
TINY = Path(__file__).with_name("tiny.py")


@dataclass(frozen=True)
class Ground:
    """A directory with text, in which runs are made."""

    path: Path

    def words(self, run: str, *words: str, experiment: Path = TINY) -> list[str]:
        """The command line of a short run."""
        return ["run", str(experiment), "--run-dir", run, *SHORT, *words]

    def manifest(self, run: str) -> dict:
        return json.loads((self.path / run / "manifest.json").read_text())


@pytest.fixture
def ground(tmp_path, monkeypatch) -> Ground:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXLM_CACHE", str(tmp_path / "cache"))
    text(tmp_path / "text")
    return Ground(tmp_path)
