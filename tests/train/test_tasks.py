"""Tasks that are asked of a model while it is trained, and of its run afterwards."""

import json
import re

import pytest

from jaxlm.cli import main
from jaxlm.evaluate import inside
from jaxlm.runs.journal import read_metrics
from jaxlm.runs.report import write_report

ASKED = """
from jaxlm.config import LastWord, MinimalPairs, Records, Task


def tasks() -> tuple[Task, ...]:
    rows = Records("rows.jsonl")
    return (MinimalPairs("pairs", rows), LastWord("last", rows, text="{good}"))
"""
LONG = """
from jaxlm.config import MinimalPairs, Records, Task


def tasks() -> tuple[Task, ...]:
    return (MinimalPairs("long", Records("rows.jsonl"), good="{good} {good}"),)
"""
DRAWN = """
from jaxlm.config import Generation


def tasks():
    return (Generation(),)
"""


@pytest.fixture
def asked(ground, monkeypatch):
    rows = [{"good": f"the number {i} is even", "bad": f"number the {i} even is"} for i in range(6)]
    (ground.path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (ground.path / "asked.py").write_text(ASKED)
    (ground.path / "long.py").write_text(LONG)
    (ground.path / "drawn.py").write_text(DRAWN)
    monkeypatch.setenv("JAXLM_DATA", str(ground.path))
    return ground


def test_tasks_of_a_run(asked, capsys, monkeypatch):
    words = asked.words("run", "--where.tasks", "long.py", "asked.py", "--where.every.tasks", "4")
    words += ["--where.every.checkpoint", "4", "--where.attention", "xla"]
    calls = []

    def interrupted(model, tokenizer, call, experiment):
        calls.append(call)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(inside, "subject", interrupted)
        assert main(words) == 130
    # One device computes attention its own way, whatever the training mesh is told.
    assert calls[0].attention == "auto"
    # Ended while it was asked, it is saved, and asked when it goes on.
    assert main(words) == 0
    out = capsys.readouterr().out
    assert re.search(r"resumed at step 4\n.* step 4 pairs/accuracy ", out)
    records = read_metrics(asked.path / "run", ("tasks",))
    assert [one["step"] for one in records] == [4, 6]
    # A text longer than the model reads ends its own task only.
    told = "step 6 could not ask long: a text of 41 tokens after 1 cannot be scored: the model reads 32 tokens"
    assert told in out
    assert main(["runs", "show", "run"]) == 0
    assert told in capsys.readouterr().out
    names = {"pairs/accuracy", "last/accuracy", "last/perplexity", "last/loss"}
    for one in records:
        assert names <= one.keys()
        assert all(low <= value <= high for value, low, high in (one[name] for name in names))
    assert records[0]["last/loss"] != records[1]["last/loss"]
    page = write_report(asked.path / "run").read_text()
    assert "<h2>Tasks</h2>" in page
    assert "last/perplexity" in page
    assert told in page
    # What the trained model is asked afterwards is what it was asked after the last step, on one device.
    kept = asked.path / "run/config.json"
    kept.write_text(kept.read_text().replace('"attention": "xla"', '"attention": "ring"'))
    assert main(["eval", "run", "asked.py"]) == 0
    found = json.loads((asked.path / "run/evaluations/last.json").read_text())
    values = {one["name"]: one["value"] for one in found["metrics"]}
    assert values["loss"] == pytest.approx(records[1]["last/loss"][0], abs=1e-5)
    # Cadences are no part of what is computed.
    assert main(asked.words("other", "--where.attention", "xla")) == 0
    parameters = [asked.manifest(one)["parameters"] for one in ("run", "other")]
    assert parameters[0] == parameters[1]
    assert "<h2>Tasks</h2>" not in write_report(asked.path / "other").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--where.tasks", "asked.py"), "where.every.tasks is 0: name what to ask and how often"),
        (("--where.every.tasks", "2"), "where.tasks has 0 files"),
        (("--where.tasks", "none.py", "--where.every.tasks", "2"), "none.py"),
        (("--where.tasks", "asked.py", "--where.every.tasks", "2", "rows"), "no rows.jsonl"),
        (("--where.tasks", "long.py", "long.py", "--where.every.tasks", "2"), "several tasks are named long"),
        (("--where.tasks", "drawn.py", "--where.every.tasks", "2"), "generation: draw.tokens is 64: "),
    ],
)
def test_what_is_wrong_is_said_before_a_run_is_made(asked, capsys, words, said):
    if words[-1] == "rows":
        (asked.path / "rows.jsonl").unlink()
        words, said = words[:-1], "pairs: there is no "
    assert main(asked.words("run", *words)) == 2
    assert said in capsys.readouterr().err
    assert not (asked.path / "run").exists()


@pytest.mark.nightly
def test_one_device_computes_attention_its_own_way(asked):
    """Ring attention is for several devices; samples, tasks and `eval` are computed on one."""
    words = ("--where.mesh.data", "4", "--where.mesh.context", "2", "--where.attention", "ring")
    tasks = ("--where.tasks", "asked.py", "--where.every.tasks", "6")
    assert main(asked.words("run", "the ", *words, *tasks)) == 0
    assert json.loads((asked.path / "run/samples.json").read_text())[0]["log_probabilities"][-1] < 0
    assert main(["eval", "run", "asked.py"]) == 0
    found = json.loads((asked.path / "run/evaluations/last.json").read_text())
    values = {one["name"]: one["value"] for one in found["metrics"]}
    (told,) = read_metrics(asked.path / "run", ("tasks",))
    assert values["loss"] == pytest.approx(told["last/loss"][0], abs=1e-5)
