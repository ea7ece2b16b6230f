"""The journal survives kills at any byte, and its reader sees one history."""

import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxlm.config.errors import Failure
from jaxlm.runs.journal import Journal, read_metrics


def steps(records, kind="train"):
    return [(one["step"], one["attempt"]) for one in records if one["kind"] == kind]


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_later_attempt_supersedes_what_it_computes_again(tmp_path, in_parts):
    with Journal(tmp_path, 1, in_parts=in_parts) as journal:
        for step in (10, 20, 30, 40):
            journal.write("train", step, loss=1.0 / step)
        journal.write("evaluate", 20, bits_per_byte=2.0)
        journal.write("event", 40, event="note")
    with Journal(tmp_path, 2, resumed_from=20, in_parts=in_parts) as journal:
        journal.write("evaluate", 20, bits_per_byte=2.5)
        journal.write("train", 30, loss=5.0)
    records = read_metrics(tmp_path)
    # step 40 of the first attempt lies beyond the restored state, though no one has reached it again
    assert steps(records) == [(10, 1), (20, 1), (30, 2)]
    assert steps(records, "evaluate") == [(20, 2)]
    assert [one["event"] for one in records if one["kind"] == "event"] == ["note", "resumed"]
    assert steps(read_metrics(tmp_path, ("train",))) == steps(records)
    assert {one["kind"] for one in read_metrics(tmp_path, ("evaluate",))} == {"evaluate"}
    with Journal(tmp_path, 3, resumed_from=0, in_parts=in_parts):
        pass
    assert steps(read_metrics(tmp_path)) == []
    assert sum(1 for one in tmp_path.rglob("*.jsonl")) == (3 if in_parts else 1)


def test_an_attempt_that_restored_nothing_supersedes_nothing(tmp_path):
    with Journal(tmp_path, 1) as journal:
        journal.write("train", 10, loss=1.0)
    with Journal(tmp_path, 2):
        pass
    assert steps(read_metrics(tmp_path)) == [(10, 1)]


def test_torn_at_every_byte(tmp_path):
    with Journal(tmp_path, 1) as journal:
        for step in range(3):
            journal.write("train", step, loss=0.5, text="naïve")
    file = tmp_path / "metrics.jsonl"
    whole = file.read_bytes()
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        lines = whole[:size].count(b"\n")
        assert len(read_metrics(tmp_path)) == lines
        with Journal(tmp_path, 2) as journal:
            journal.write("train", 9, loss=0.1)
        assert steps(read_metrics(tmp_path)) == [(step, 1) for step in range(lines)] + [(9, 2)]


def test_damage_elsewhere_is_named(tmp_path):
    with Journal(tmp_path, 1) as journal:
        journal.write("train", 1, loss=0.5)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind":"tr\n')
    with pytest.raises(Failure, match=r"metrics.jsonl:2 is damaged"):
        read_metrics(tmp_path)


def test_killed_while_writing(tmp_path):
    code = (
        "import sys; from jaxlm.runs.journal import Journal\n"
        "j = Journal(sys.argv[1], int(sys.argv[2]))\n"
        "for i in range(10**9): j.write('train', i, loss=0.5, text='x' * 5000)\n"
    )
    draw = random.Random(0)
    for attempt in (1, 2, 3):
        child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(attempt)])
        size = os.path.getsize(tmp_path / "metrics.jsonl") if attempt > 1 else 0
        while (
            not (tmp_path / "metrics.jsonl").exists() or os.path.getsize(tmp_path / "metrics.jsonl") <= size
        ):
            time.sleep(0.005)
        time.sleep(draw.random() * 0.05)
        child.kill()
        child.wait()
        records = read_metrics(tmp_path)
        assert max(one["attempt"] for one in records) == attempt
        assert len({one["step"] for one in records}) == len(records)


def test_values(tmp_path):
    with Journal(tmp_path, 1) as journal:
        journal.write(
            "train", np.int64(1), loss=np.float32(0.5), norms=np.ones(2), bad=float("nan"), up=np.inf
        )
    line = (tmp_path / "metrics.jsonl").read_text()
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (one,) = read_metrics(tmp_path)
    assert (one["loss"], one["norms"], one["up"]) == (0.5, [1.0, 1.0], np.inf)
    assert np.isnan(one["bad"])


def test_a_full_disk_is_one_line(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    journal = Journal(tmp_path, 1)
    os.dup2(os.open("/dev/full", os.O_WRONLY), journal._file.fileno())
    with pytest.raises(Failure, match=r"cannot write .*metrics.jsonl: No space left on device"):
        journal.write("train", 1, loss=0.5)


def test_parts_are_written_now_and_then(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    journal = Journal(tmp_path, 1, in_parts=True)
    journal.write("train", 1, loss=0.5)
    assert read_metrics(tmp_path) == []
    now[0] = 31.0
    journal.write("train", 2, loss=0.5)
    assert steps(read_metrics(tmp_path)) == [(1, 1), (2, 1)]
    journal.write("train", 3, loss=0.5)
    journal.close()
    assert sorted(os.listdir(tmp_path / "metrics")) == ["0001-000000.jsonl", "0001-000001.jsonl"]
