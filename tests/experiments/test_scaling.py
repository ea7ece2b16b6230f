"""Scaling over processes runs and its losses agree; the closed form over chips is what it says."""

import contextlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.experiments.scripts import BENCHMARKS, load

scaling = load("scaling")


def test_which_arms_share_which_rows():
    assert scaling.cases((2, 4, 8), 2) == {
        16: [("strong", 2), ("strong", 4), ("both", 8)],
        8: [("weak", 4)],
        4: [("weak", 2)],
    }
    assert scaling.cases((2,), 3) == {6: [("both", 2)]}


def test_two_processes_beside_one(monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiles in half the time
    history = []
    with scaling.start("data", 2, 1) as one, scaling.start("fsdp", 2, 1, processes=2) as other:
        pairs, losses = scaling.turns(one, other, rounds=2, history=history, warm=1)
        more = scaling.turns(one, other, rounds=1, history=history, warm=0)[1]
    assert len(pairs) == 2
    assert len(losses) == 3
    assert len(history) == 4
    assert history[0] > history[-1]
    assert scaling.agreeing(losses + more, history)
    assert not scaling.agreeing(losses[1:], history)
    assert not scaling.agreeing([history[0] * (1 + 100 * scaling.TOLERANCE)], history)


@pytest.mark.parametrize("error", [0.0, 1e-4])
def test_the_table_and_its_verdict(monkeypatch, capsys, error):
    """Steps that nobody took: one device needs 1 s, others as many as they are."""

    def fake(mesh, rows, layers, devices=1, processes=1):
        loss = 1.0 + error * (mesh == "fsdp" and devices == 4)
        turn = {"seconds": float(devices), "loss": loss}
        return contextlib.nullcontext(SimpleNamespace(turn=lambda: turn, facts={"compile": 2.0}))

    monkeypatch.setattr(scaling, "start", fake)
    assert scaling.scale("devices", SimpleNamespace(most=4, rows=2, layers=1, rounds=3)) == (error == 0)
    found = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[:4] for line in found] == [
        ["strong", "2", "data", "8"],
        ["strong", "2", "fsdp", "8"],
        ["both", "4", "data", "8"],
        ["both", "4", "fsdp", "8"],
        ["weak", "2", "data", "4"],
        ["weak", "2", "fsdp", "4"],
    ]
    assert found[0][4:] == ["1,024", "2,048", "0.50", "(0.50-0.50)", "2.0"]
    assert found[3][6] == "0.25"


def test_a_process_that_fails_ends_the_comparison():
    with pytest.raises(SystemExit, match="ended early with code 1"):
        scaling.start("nothing", 2, 1)


def test_the_closed_form_of_the_7b():
    assert scaling.planned(1, 4) is None  # 16 bytes a parameter are more than a chip has
    one = scaling.planned(8, 32)
    # On 8 chips nothing but products takes time: 6 FLOPs a parameter and token, and attention, at 0.7 of peak.
    assert one["mesh"] == "fsdp 8"
    products = 6 * 6.74e9 * 32 * 4096 / (8 * 459e12 * 0.7)
    assert products < one["seconds"] < 1.15 * products
    assert one["speed"] == pytest.approx(32 * 4096 / 8 / one["seconds"])


def test_the_table_of_chips(capsys):
    scaling.plan([8, 1])
    lines = capsys.readouterr().out.splitlines()
    assert "predicts nothing" in lines[0]
    assert lines[2].split()[:3] == ["weak", "1", "4"]
    assert "nothing divides and fits" in lines[2]
    assert lines[3].split()[5] == "1.00"


@pytest.mark.parametrize("words", [["chips"], ["--rows", "0"], ["--most", "1"], ["plan", "--chips", "x"]])
def test_wrong_words(words):
    done = subprocess.run([sys.executable, str(BENCHMARKS / "scaling.py"), *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: " in done.stderr
