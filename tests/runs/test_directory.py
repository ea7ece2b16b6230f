"""Run directories: created, resumed, refused; whatever is refused is left as it was."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from jaxlm.config import Custom
from jaxlm.config.codec import what_hash
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.overrides import apply
from jaxlm.runs.directory import finish, open_run, read_experiment, record, release, run_path, status
from tests.base import experiment

BASE = experiment()


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def snapshot(path) -> dict:
    files = pathlib.Path(path).rglob("*")
    return {str(one): (one.stat().st_mtime_ns, one.is_file() and one.read_bytes()) for one in files}


def test_created_then_resumed_then_finished():
    run = open_run(BASE)
    assert str(run.path) == f"runs/base-{what_hash(BASE)[:8]}"
    assert (run.attempt, run.resumed, run.finished) == (1, False, False)
    assert read_experiment(run.path) == BASE
    assert json.loads((run.path / "config.json").read_text())["hash"] == what_hash(BASE)
    assert status(run.path) == "running"
    release(run)
    assert status(run.path) == "stopped"

    moved = apply(BASE, ["--where.mesh.fsdp", "8"])
    again = open_run(moved)
    assert (again.path, again.attempt, again.resumed) == (run.path, 2, True)
    first, second = (json.loads((run.path / "manifests" / f"000{i}.json").read_text()) for i in (1, 2))
    assert (first["where"]["mesh"]["fsdp"], second["where"]["mesh"]["fsdp"]) == (1, 8)
    record(again, devices=["cpu"], mesh={"data": 1})
    latest = json.loads((run.path / "manifest.json").read_text())
    assert latest == second | {"devices": ["cpu"], "mesh": {"data": 1}}

    finish(again)
    assert status(run.path) == "finished"
    before = snapshot(run.path)
    done = open_run(BASE)
    assert (done.finished, done.attempt) == (True, 2)
    assert snapshot(run.path) == before


def test_a_named_directory(tmp_path):
    assert open_run(BASE, str(tmp_path / "a" / "b")).path == run_path(BASE, str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b" / "config.json").exists()


def test_another_experiments_run_is_refused(tmp_path):
    release(open_run(BASE, "mine"))
    before = snapshot(tmp_path)
    other = apply(BASE, ["--train.steps", "7", "model.position:learned", "--where.micro_batches", "2"])
    with pytest.raises(UsageError) as error:
        open_run(other, "mine")
    text = str(error.value)
    assert "mine is a run of another experiment" in text
    assert "train.steps: 600 there, 7 here" in text
    assert "model.position: 'Rope' there, 'Learned' here" in text
    assert "micro_batches" not in text
    assert snapshot(tmp_path) == before


def test_a_changed_objective_is_another_experiment(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_loss.py").write_text("def objective(): ...\n")
    tree = dataclasses.replace(BASE, objective=Custom("a_loss:objective"))
    release(open_run(tree, "mine"))
    (tmp_path / "a_loss.py").write_text("def objective(): return 1\n")
    with pytest.raises(UsageError, match="source of the objective has changed"):
        open_run(tree, "mine")


def test_a_foreign_directory_is_refused(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("x")
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match=r"thesis is no run and not empty \(it has chapter1.tex\)"):
        open_run(BASE, "thesis")
    with pytest.raises(UsageError, match="is a file"):
        open_run(BASE, "thesis/chapter1.tex")
    assert snapshot(tmp_path) == before


def test_a_run_killed_while_it_was_created_goes_on(tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "LOCK").write_text("")
    (tmp_path / "half" / "config.json.123.tmp").write_text('{"experi')
    assert open_run(BASE, "half").attempt == 1


def test_a_damaged_config_is_a_failure(tmp_path):
    release(open_run(BASE, "mine"))
    (tmp_path / "mine" / "config.json").write_text('{"experiment": ')
    with pytest.raises(Failure, match=r"config.json is damaged"):
        open_run(BASE, "mine")
    with pytest.raises(UsageError, match="is no run"):
        read_experiment(tmp_path)


def test_a_directory_that_cannot_be_written(monkeypatch):
    with pytest.raises(Failure, match=r"cannot open /proc/nowhere.*") as error:
        open_run(BASE, "/proc/nowhere/run")
    assert "\n" not in str(error.value)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Failure, match=r"cannot write full/config.json: No space left on device"):
        open_run(BASE, "full")
    assert not [name for name in os.listdir("full") if name.endswith(".tmp")]


def test_only_one_process_writes(tmp_path):
    holder = textwrap.dedent("""
        import sys, os
        from tests.base import experiment
        from jaxlm.runs.directory import open_run
        open_run(experiment(), "mine")
        print(os.getpid(), flush=True)
        sys.stdin.read()
    """)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    child = subprocess.Popen([sys.executable, "-c", holder], env=os.environ | {"PYTHONPATH": root}, **pipes)
    try:
        pid = child.stdout.readline().strip()
        assert status("mine") == "running"
        before = snapshot(tmp_path)
        with pytest.raises(UsageError, match=f"is being written by process {pid} on "):
            open_run(BASE, "mine")
        assert snapshot(tmp_path) == before
    finally:
        child.kill()
        child.communicate()
    assert status("mine") == "stopped"
    assert open_run(BASE, "mine").attempt == 2


@pytest.mark.parametrize(("path", "package"), [("gs://a/b", "gcsfs"), ("s3://a/b", "s3fs")])
def test_an_object_store_without_its_client(path, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(Failure, match=f"^cannot open {path}: pip install {package}$"):
        open_run(BASE, path)
