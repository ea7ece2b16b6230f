"""What the benchmark of starting takes from a run's journal, and what may not import jax."""

import subprocess
import sys

import pytest

from jaxlm.config.load import load_experiment
from jaxlm.config.overrides import apply
from jaxlm.runs.journal import Journal, read_metrics
from tests.experiments.scripts import load

startup = load("startup")


def test_the_first_step_from_a_journal(tmp_path):
    with Journal(tmp_path) as journal:
        seconds = {"other": 0.5, "data": 2.0, "compile": 3.0, "checkpoint": 0.25, "step": 1.0}
        journal.write("train", 1, loss=1.0)
        journal.write("event", 1, event="goodput", seconds=seconds)
        journal.write("event", 3, event="goodput", seconds={"other": 100.0})
    records = read_metrics(tmp_path)
    found = startup.parts(records[1]["time"] - 8.0, records)
    expected = {"import": 1.25, "data": 2.0, "compile": 3.0, "step": 1.0, "other": 0.75, "total": 8.0}
    assert found == pytest.approx(expected)


def test_the_quickstart_can_be_made_small(tmp_path):
    tree = apply(load_experiment(startup.QUICKSTART), list(startup.TINY))
    assert (tree.train.steps, tree.model.layers, tree.samples.prompts) == (3, 2, ())
    # The journal tells of the first step only if it is not the last, and not a logged one anyway.
    assert tree.train.steps > 1
    assert tree.where.every.log > 1
    startup.write_text(tmp_path / "text", topics=5)
    assert len(list((tmp_path / "text").glob("*.txt"))) == 5


def test_answers_do_not_import_jax(capsys):
    startup.answers(rounds=1)
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["jaxlm", "--help"], ["jaxlm", "show"], ["jaxlm", "run"]]


def test_a_command_that_imports_jax_is_found(tmp_path, monkeypatch):
    startup.poison(tmp_path)
    done = subprocess.run([sys.executable, "-c", "import jax"], env=startup.environment(PYTHONPATH=str(tmp_path)))
    assert done.returncode == 1
    monkeypatch.setattr(startup, "QUICK", {("runs", "list", str(tmp_path)): 2})
    with pytest.raises(SystemExit, match="expected 2"):
        startup.answers(rounds=1)


def test_nothing_that_another_run_kept(monkeypatch):
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAXLM_CACHE", "GLIBC_TUNABLES"):
        monkeypatch.setenv(name, "/there")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    found = startup.environment(JAXLM_CACHE="/here")
    assert "JAX_COMPILATION_CACHE_DIR" not in found
    assert "GLIBC_TUNABLES" not in found
    assert (found["JAXLM_CACHE"], found["JAX_PLATFORMS"]) == ("/here", "cpu")
