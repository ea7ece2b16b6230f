"""A study as its user runs it: real runs, one of them failing, then the same command again."""

import csv
import html.parser
import json
import re
import signal

import pytest

from jaxlm.runs.journal import read_metrics
from tests.drills.drill import end, wait_for

STUDY = """
import dataclasses
from jaxlm.config import Arm, Study
from tests.train.tiny import experiment

def study():
    tiny = experiment()
    train = dataclasses.replace(tiny.train, steps=6)
    every = dataclasses.replace(tiny.where.every, log=2, evaluate=3, checkpoint=0)
    where = dataclasses.replace(tiny.where, every=every, micro_batches=1)
    base = dataclasses.replace(tiny, train=train, where=where)
    return Study(
        name="tiny",
        base=base,
        arms=(
            Arm("rope"),
            Arm("none", ("model.position:no_position",)),
            Arm("learned", ("model.position:learned", "--model.position.length=32")),
        ),
        seeds=(0, 1),
        differs=("model.position", "parameters"),
    )
"""


class Links(html.parser.HTMLParser):
    """What a page would fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [v for k, v in attributes if k in ("src", "href") and v and not v.startswith(("data:", "#"))]


def rows(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_study(ground):
    file = ground.path / "mine.py"
    file.write_text(STUDY)
    root = ground.path / "studies/tiny"

    dry = end(ground.start("study", "mine.py", "--dry-run")).expect(0)
    assert "0 of 6 runs are finished" in dry.out
    assert not root.exists()

    # learned positions are too few for documents that go on in the next row: that arm fails, the others go on
    first = end(ground.start("study", "mine.py")).expect(1)
    assert "learned/0 failed: " in first.out
    assert "packing.positions row" in first.out
    table = {row["arm"]: row for row in rows(root / "table.csv")}
    assert [table[arm]["n"] for arm in ("rope", "none", "learned")] == ["2", "2", "0"]
    assert table["none"]["verdict"] in ("better", "worse", "inside noise")
    runs = rows(root / "runs.csv")
    assert [one["status"] for one in runs] == ["finished", "finished", "failed"] * 2
    for one in runs:
        if one["status"] == "finished":  # the number in the table is the run's own
            last = read_metrics(root / one["run"], ("evaluate",))[-1]
            assert (last["step"], last["loss"]) == (6, float(one["loss"]))
    page = (root / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert links.found == []
    assert page.count("<svg") == 3
    assert "Failed: learned/0, learned/1" in page

    # again: what is finished stays, what failed is tried again, a new seed is added
    before = {one: one.stat().st_mtime_ns for one in root.glob("rope/*/metrics.jsonl")}
    again = end(ground.start("study", "mine.py", "--seeds", "0", "1", "2", "--only", "rope/2")).expect(0)
    assert "finished" in again.out
    arms = "--base.packing.positions=row"
    assert end(ground.start("study", "mine.py", arms, "--dry-run")).expect(0).out.count("0 of 6 runs") == 1
    assert {one: one.stat().st_mtime_ns for one in before} == before

    # all seeds of an arm in one program come to the same numbers
    others = end(ground.start("study", "mine.py", "--together", "--study-dir", "together")).expect(1)
    assert "rope finished" in others.out
    for one, other in zip(runs, rows(ground.path / "together/runs.csv"), strict=True):
        assert (one["arm"], one["seed"], one["status"]) == (other["arm"], other["seed"], other["status"])
        if one["status"] == "finished":
            assert abs(float(one["loss"]) - float(other["loss"])) < 1e-5

    # a metric that runs do not record: said before anything is trained
    unknown = end(ground.start("study", "mine.py", "--metric", "perplexity")).expect(2)
    assert "records no 'perplexity' after its last step; metric can be 'cross_entropy', 'loss'" in unknown.err
    assert "learned/0" not in unknown.out

    # a run of another text
    run = root / next(one["run"] for one in runs if one["run"].startswith("none/"))
    manifest = (run / "manifest.json").read_text()
    (run / "manifest.json").write_text(json.dumps(json.loads(manifest) | {"tokenizer": "0" * 64}))
    unlike = end(ground.start("study", "mine.py")).expect(2)
    assert "were not trained on the same tokenizer" in unlike.err
    assert "learned/0" not in unlike.out
    (run / "manifest.json").write_text(manifest)

    # other code
    record = json.loads((root / "study.json").read_text())
    record["code"]["models/decoder.py"] = "0" * 16
    (root / "study.json").write_text(json.dumps(record))
    refused = end(ground.start("study", "mine.py")).expect(2)
    assert re.search(r"code has changed.*\n  models/decoder.py", refused.err)


@pytest.mark.nightly
def test_a_study_that_is_told_to_stop(ground):
    """The signal goes to the process that trains, which saves; the same command goes on."""
    (ground.path / "mine.py").write_text(STUDY)
    words = ("study", "mine.py", "--study-dir", "stopped", "--seeds", "0", "--base.train.steps", "4000")
    process = ground.start(*words, "--base.where.every.evaluate", "0")
    root = ground.path / "stopped"

    def training():
        return any(read_metrics(one.parent, ("train",)) for one in root.glob("rope/*/metrics.jsonl"))

    wait_for(process, training)
    process.send_signal(signal.SIGTERM)
    assert "stopped and saved" in end(process).expect(75).out
    (run,) = root.glob("rope/*")
    assert not (run / "DONE").exists()
    assert any((run / "checkpoints").iterdir())


@pytest.mark.nightly
def test_equal_seconds(ground):
    """A step of each arm is measured first, once; an arm of half the work takes more steps."""
    arms = 'arms=(Arm("deep"), Arm("shallow", ("--model.layers=1", "--model.block.mlp.width=16"))),'
    differs = 'differs=("model", "parameters", "flops_per_token"), match="seconds",'
    text = re.sub(r"arms=\(\n.*?\n        \),", arms, STUDY, flags=re.DOTALL)
    text = re.sub(r"differs=\(.*\),", differs, text).replace("seeds=(0, 1)", "seeds=(0,)")
    (ground.path / "timed.py").write_text(text.replace("steps=6", "steps=400"))
    words = ("study", "timed.py", "--study-dir", "timed", "--base.where.every.evaluate", "0")
    assert "were not measured" in end(ground.start(*words, "--dry-run")).expect(2).err
    first = end(ground.start(*words)).expect(0)
    assert first.out.count("measuring a step of") == 2
    steps = [json.loads((ground.path / "timed" / one / "config.json").read_text()) for one in folders(ground.path)]
    deep, shallow = (one["experiment"]["train"]["steps"] for one in steps)
    assert deep == 400 != shallow
    again = end(ground.start(*words)).expect(0)
    assert "measuring" not in again.out
    assert "2 of 2 runs are finished" in again.out


def folders(path) -> list[str]:
    return [row["run"] for row in rows(path / "timed/runs.csv")]


def test_bad_requests(ground):
    (ground.path / "mine.py").write_text(STUDY)
    for words, said in (
        (("nothing.py",), "no experiment nothing.py"),
        (("mine.py", "--seeds"), "no seeds"),
        (("mine.py", "--base.train.stepz", "3"), "base.train.steps"),
        (("mine.py", "--only", "rop/0"), "there are rope, rope/0"),
        (("mine.py", "--metric"), "no value"),
    ):
        assert said in end(ground.start("study", *words, "--study-dir", "nowhere")).expect(2).err
    assert not (ground.path / "nowhere").exists()
