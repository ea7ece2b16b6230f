"""Short runs of the tiny experiment in this process, on its eight devices."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from jaxlm.config.chips import CHIPS
from jaxlm.config.codec import what_hash
from jaxlm.config.flags import FLAGS, Flags
from jaxlm.config.load import load_experiment
from jaxlm.config.overrides import apply
from jaxlm.runs.plans import Plan
from tests.drills.drill import text

SHORT = ("--train.steps", "6", "--where.micro_batches", "1", "--where.every.log", "2", "--samples.prompts")
KNOWN, UNKNOWN = "xla_cpu_enable_fast_min_max", "xla_no_such_flag"
TINY = Path(__file__).with_name("tiny.py")
FIGURES = {"step ms": 100.0, "mfu": 50.0, "peak GiB": 1.5}


def plan(words: Sequence[str], chip: str, devices: int, **changes) -> Plan:
    """A kept plan, made by hand, of the tiny experiment with some words."""
    tree = apply(load_experiment(str(TINY)), list(words))
    named = {"experiment": tree.name, "what": what_hash(tree)[:16], "topology": f"{chip}:{devices}"}
    mesh = {"data": devices} if devices > 1 else {}
    how = {"mesh": mesh, "micro_batches": tree.where.micro_batches, "remat": "none", "flags": []}
    return named | {"chip": chip, "devices": devices} | how | FIGURES | changes


@dataclass(frozen=True)
class Ground:
    """A directory with text and the tiny experiment, in which runs are made."""

    path: Path

    def words(self, run: str, *words: str) -> list[str]:
        """The command line of a short run."""
        return ["run", "tiny.py", "--run-dir", run, *SHORT, *words]

    def manifest(self, run: str) -> dict:
        return json.loads((self.path / run / "manifest.json").read_text())


@pytest.fixture
def host(monkeypatch):
    """The CPU as a chip of the table, with flags of its own: one that XLA knows, and one that it does not."""
    monkeypatch.setitem(CHIPS, "host", dataclasses.replace(CHIPS["v5p"], name="host", kind="cpu", peak=1e12))
    for name, flag in (("good", KNOWN), ("bad", UNKNOWN)):
        monkeypatch.setitem(FLAGS, name, Flags("is for tests", "nothing", ("host",), {flag: True}))


@pytest.fixture
def ground(tmp_path, monkeypatch) -> Ground:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXLM_CACHE", str(tmp_path / "cache"))
    text(tmp_path / "text")
    shutil.copy(TINY, tmp_path)
    return Ground(tmp_path)
