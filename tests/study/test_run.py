"""A study's parts, with processes that only say they have trained."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from jaxlm.config import Arm
from jaxlm.config.errors import Failure, UsageError
from jaxlm.runs.directory import DONE
from jaxlm.study import children, run
from jaxlm.study.files import code
from jaxlm.study.plan import cells, plan, written
from tests.study.studies import study


def test_what_is_wrong_with_a_finished_run_ends_the_study(monkeypatch, tmp_path):
    """A metric that runs do not record is known after the first of them, or of those that are there."""
    asked = study(seeds=(0, 1))
    todo = run.parts(cells(asked, plan(asked)), together=False)
    by_name = {part.name: part.cells[0] for part in todo}
    trained = []

    def child(words, log, say):
        cell = by_name[words[-1]]
        trained.append(cell.name)
        (tmp_path / cell.folder).mkdir(parents=True)
        (tmp_path / cell.folder / DONE).touch()
        return 0, "done"

    def check(cell):
        raise UsageError(f"{cell.name} records no such metric")

    monkeypatch.setattr(run, "child", child)
    for _ in range(2):
        with pytest.raises(UsageError, match=f"{todo[0].name} records no such metric"):
            run.run_all(todo, tmp_path, [], lambda line: None, check)
        assert trained == [todo[0].name]
    assert not run.run_all(todo, tmp_path, [], lambda line: None, lambda cell: None).failed
    assert trained == [part.name for part in todo]


def test_a_process_that_dies_of_the_signal_was_told_to_stop(monkeypatch, tmp_path):
    """Before training there is nothing to save: it is not a failed run, and nothing else is begun."""
    todo = run.parts(cells(study(), plan(study())), together=False)
    begun = []

    def process(words):
        begun.append(words[-1])
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        wait = [sys.executable, "-c", "import time; time.sleep(60)"]
        return subprocess.Popen(wait, stdout=subprocess.PIPE, text=True)

    monkeypatch.setattr(children, "_process", process)
    progress = run.run_all(todo, tmp_path, [], lambda line: None, lambda cell: None)
    assert (progress.stopped, progress.failed, begun) == (True, {}, [todo[0].name])


def test_seconds_are_measured_once_for_each_experiment(monkeypatch, tmp_path):
    root, measured = tmp_path / "study", []

    def child(words, log, say):
        measured.append(words[-1])
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        return 0, "0.25"

    monkeypatch.setattr(run, "child", child)
    differs = ("model.layers", "parameters", "flops_per_token")
    for layers, wanted in ((3, ["deep/seconds", "shallow/seconds"]), (3, []), (2, ["shallow/seconds"])):
        measured.clear()
        arms = (Arm("deep"), Arm("shallow", (f"--model.layers={layers}",)))
        asked = study(arms=arms, match="seconds", differs=differs)
        before = written(asked)
        run.write_record(asked, before, root)
        run.measured(asked, before, root, [], lambda line: None)
        assert measured == wanted
        assert run.known_seconds(before, root) == {"deep": 0.25, "shallow": 0.25}


def test_a_directory_of_another_study_is_refused(tmp_path):
    arms = plan(study())
    run.write_record(study(), arms, tmp_path / "here")
    with pytest.raises(UsageError, match="is the study positions"):
        run.write_record(study(name="another"), arms, tmp_path / "here")
    assert json.loads((tmp_path / "here" / run.RECORD).read_text())["name"] == "positions"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"not empty \(it has notes.txt\)"):
        run.write_record(study(), arms, tmp_path / "full")


def test_the_code_that_decides_a_studys_numbers():
    """Of tasks too, which can be the metric; not that of commands and pages."""
    hashed = code()
    for name in ("train/step.py", "evaluate/score.py", "study/programs.py", "jax"):
        assert name in hashed
    for name in ("cli/study.py", "runs/report/page.py", "study/page.py"):
        assert name not in hashed


def test_a_seed_that_fails_leaves_the_others(monkeypatch, tmp_path):
    tried = []

    def train(experiment, run_dir, tasks):
        tried.append(experiment.train.seed)
        if experiment.train.seed == 0:
            raise Failure("the loss is not finite")
        return 0

    monkeypatch.setattr("jaxlm.train.run.run", train)
    rope = run.chosen(cells(study(), plan(study())), "rope")
    assert run.train(rope, tmp_path, together=False) == 1
    assert tried == [0, 1, 2]
