"""What on a command line is a model of others, and what a run."""

import json

import pytest

from jaxlm.cli.models import is_model, run_of, with_init
from jaxlm.config.errors import UsageError


def test_models_and_runs(tmp_path):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    for name, contents in (
        ("model", {"model_type": "llama"}),
        ("run", {"hash": "1", "experiment": {}}),
        ("odd", []),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(contents))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/config.json").write_text("{")
    assert is_model(tmp_path / "small.gguf")
    assert is_model(tmp_path / "model")
    for name in ("run", "odd", "damaged", "nothing"):
        assert not is_model(tmp_path / name)
        assert run_of(str(tmp_path / name), ["run"]) == str(tmp_path / name)


def test_the_other_words_stay(tmp_path):
    words = ["run", "file.py", "--init", "gs://somewhere/run", "--train.steps", "3"]
    assert with_init(words) == ["file.py", "--train.steps", "3", "--init", "gs://somewhere/run"]
    assert with_init(["run", "file.py", "--train.steps", "3"]) == ["file.py", "--train.steps", "3"]


def test_several_processes_do_not_import_at_once(tmp_path, monkeypatch):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    given = {"COORDINATOR": "127.0.0.1:80", "NUM_PROCESSES": "2", "PROCESS_ID": "1"}
    for name, value in given.items():
        monkeypatch.setenv(f"JAXLM_{name}", value)
    with pytest.raises(UsageError, match=r"import it once, jaxlm import .*small.gguf"):
        run_of(str(tmp_path / "small.gguf"), ["run"])
