"""The ledger's tables, read back from what they print."""

import os
import time

import pytest

from jaxlm.cli import main, text
from jaxlm.config.overrides import apply
from jaxlm.runs import directory, goodput
from jaxlm.runs.journal import Journal
from tests.base import experiment

BASE = experiment()


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """Two runs: `a` finished, `b` stopped after a resume."""
    monkeypatch.chdir(tmp_path)
    a = directory.open_run(BASE, "runs/a")
    with Journal(a.path, 1) as journal:
        journal.write("train", 600, loss=2.5)
        journal.write("evaluate", 300, bits_per_byte=1.5)
        journal.write("evaluate", 600, bits_per_byte=1.75)
    directory.finish(a)
    time.sleep(0.01)
    other = apply(BASE, ["--train.steps", "300", "--train.ema", "0.9", "model.position:learned"])
    directory.release(directory.open_run(other, "runs/b"))
    b = directory.open_run(other, "runs/b")
    now = [0.0]
    clock = goodput.Clock(lambda: now[0])
    with Journal(b.path, 2, resumed_from=50) as journal:
        journal.write("train", 100, loss=3.5)
        with clock("step"):
            now[0] += 3
        now[0] += 1
        goodput.write(journal, 100, clock)
    directory.release(b)


def said(capsys, *words) -> list[list[str]]:
    assert main(["runs", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    return [line.split() for line in out.split("\n") if line]


def test_list(ledger, capsys):
    header, b, a = said(capsys, "list")
    assert header == ["name", "hash", "steps", "loss", "bits/byte", "status", "written"]
    assert b[2:6] == ["100/300", "3.5000", "-", "stopped"]
    assert a[:6] == ["base", directory.what_hash(BASE)[:8], "600/600", "2.5000", "1.5000", "finished"]
    assert said(capsys) == said(capsys, "list", "runs")


def test_a_damaged_run_does_not_hide_the_others(ledger, capsys):
    with open("runs/a/config.json", "w") as file:
        file.write("{")
    assert [row[-1] if "damaged" in row else "" for row in said(capsys, "list")] == ["", "", "damaged"]
    assert main(["runs", "show", "a"]) == 1
    assert capsys.readouterr().err == "jaxlm runs: runs/a/config.json is damaged: it holds no experiment\n"


def test_no_runs_yet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert said(capsys, "list")[0][:4] == ["no", "runs", "in", "runs;"]
    os.mkdir("elsewhere")
    assert said(capsys, "list", "elsewhere") == [["no", "runs", "in", "elsewhere"]]


def test_show(ledger, capsys):
    rows = said(capsys, "show", "b")
    assert rows[0] == ["runs/b", "stopped", "step", "100", "of", "300"]
    assert [(row[0], row[-1]) for row in rows[2:4]] == [("1", "0"), ("2", "50")]
    assert ["train/loss", "3.5000"] in rows
    assert ["step", "3", "s", "75.0", "%"] in rows
    assert ["total", "4", "s", "100.0", "%"] in rows


def test_diff(ledger, capsys):
    rows = said(capsys, "diff", "a", "b")
    assert ["train.steps", "600", "300"] in rows
    assert ["train.ema", "none", "0.9"] in rows
    assert ["model.position.length", "(absent)", "1024"] in rows
    assert ["train/loss", "2.5000", "3.5000", "+1"] in rows
    assert said(capsys, "diff", "a", "a")[0] == ["the", "configs", "are", "the", "same"]


def test_a_name_that_is_nearly_there(ledger, capsys):
    assert main(["runs", "show", "runs/bb"]) == 2
    assert capsys.readouterr().err == "jaxlm runs: runs/bb does not exist; nearest:\n  runs/b\n"


def test_on_a_terminal_tables_are_ruled(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    shown = text.table(("name", "status"), [("[a]", "finished")])
    assert "─" in shown
    assert "[a]" in shown


def test_numbers():
    assert [text.count(x) for x in (0, 12, 999, 1000, 4_262_144, 5.56e12, 0.5)] == [
        "0",
        "12",
        "999",
        "1k",
        "4.26M",
        "5.56T",
        "0.5",
    ]
    assert [text.size(x) for x in (5, 2048, 3 * 2**30)] == ["5 B", "2 KiB", "3 GiB"]
    assert [text.duration(x) for x in (0.25, 42, 600, 7260, 300_000)] == [
        "0.25 s",
        "42 s",
        "10 min",
        "2 h 1 min",
        "3 d",
    ]
