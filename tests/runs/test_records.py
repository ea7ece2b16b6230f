"""The clock's sums, what manifests tell and keep to themselves, and TensorBoard's own reader."""

import builtins
import contextlib
import subprocess
import sys

import pytest

from jaxlm.runs import goodput
from jaxlm.runs.journal import Journal, read_metrics
from jaxlm.runs.manifest import flags, git, manifest, redact, redact_argv
from jaxlm.runs.tensorboard import open_tensorboard
from tests.base import experiment


def test_the_clock_adds_up():
    now = [0.0]
    clock = goodput.Clock(lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    wait(1)
    with clock("step"):
        wait(2)
        with clock("compile"):
            wait(10)
        wait(3)
        with contextlib.suppress(KeyError), clock("data"):
            wait(4)
            raise KeyError
    wait(5)
    assert clock.seconds() == {"other": 6, "step": 5, "compile": 10, "data": 4}
    assert sum(clock.seconds().values()) == now[0]


def test_goodput_of_all_attempts(tmp_path):
    for attempt in (1, 2):
        now = [0.0]
        clock = goodput.Clock(lambda now=now: now[0])
        with Journal(tmp_path, attempt) as journal:
            for step in (1, 2):
                with clock("step"):
                    now[0] += attempt
                goodput.write(journal, step, clock)
    assert goodput.breakdown(read_metrics(tmp_path))["step"] == 2 * 1 + 2 * 2


def test_manifest():
    tree = manifest(experiment(), mesh={"data": 8})
    assert tree["python"].split(".")[:2] == [str(part) for part in sys.version_info[:2]]
    assert tree["packages"]["jax"]
    assert tree["mesh"] == {"data": 8}
    assert tree["devices"] is None


def test_secrets_stay_out():
    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAXLM_API_KEY": "hunter2",
        "XLA_FLAGS": "--a=b",
        "HOME": "/root",
        "HF_TOKEN": "hunter2",
        "JAX_COORDINATOR_ADDRESS": "http://me:hunter2@host:1",
    }
    kept = flags(environment)
    assert kept["JAX_PLATFORMS"] == "cpu"
    assert kept["XLA_FLAGS"] == "--a=b"
    assert set(kept) == {"JAX_PLATFORMS", "JAXLM_API_KEY", "XLA_FLAGS", "JAX_COORDINATOR_ADDRESS"}
    argv = ["jaxlm", "--api_key", "hunter2", "--token=hunter2", "--tokens", "100", "--key", "hunter2"]
    hidden = redact_argv(argv)
    diff = redact('+API_KEY = "hunter2"\n+password: hunter2\n+"hf_token": "hunter2"\n+tokens = 100\n')
    for text in (str(kept), str(hidden), diff):
        assert "hunter2" not in text
    assert "--tokens', '100'" in str(hidden)
    assert "tokens = 100" in diff


def test_git_tells_the_commit_and_what_changed(tmp_path):
    assert git(tmp_path) is None

    def run(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    run("init", "-q")
    (tmp_path / "a.txt").write_text("one\n")
    run("add", ".")
    run("commit", "-qm", "one")
    clean = git(tmp_path)
    assert (clean["dirty"], clean["diff"], clean["untracked"], len(clean["commit"])) == (False, "", [], 40)
    (tmp_path / "a.txt").write_text("two\n")
    (tmp_path / "b.txt").write_text("new\n")
    dirty = git(tmp_path)
    assert dirty["dirty"]
    assert "+two" in dirty["diff"]
    assert dirty["untracked"] == ["b.txt"]


def test_tensorboard_reads_what_was_written(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    writer = open_tensorboard(tmp_path)
    writer(1, {"train/loss": 2.0})
    writer(2, {"train/loss": 1.5})
    writer.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("train/loss")] == [(1, 2.0), (2, 1.5)]
    assert "tensorflow" not in sys.modules


def test_without_tensorboard_one_line_is_said(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    said = []
    assert open_tensorboard(tmp_path, said.append) is None
    assert open_tensorboard("gs://bucket/run", said.append) is None
    assert len(said) == 2
    assert "pip install 'jaxlm[report]'" in said[0]
    assert not list(tmp_path.iterdir())
