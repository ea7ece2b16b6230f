"""The comparison of training steps: sides that agree make a table, others end it."""

import pytest

from tests.experiments.scripts import load

train_step = load("train_step")


def fake(monkeypatch, losses):
    """Sides nobody ran, of these losses; jaxlm takes 0.25 s a step, the others 0.5 s."""

    class Side:
        def __init__(self, side, *_):
            self.side, self.facts = side, {"compile": 2.0}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def turn(self):
            return {"seconds": 0.25 if self.side == "jaxlm" else 0.5, "loss": losses[self.side], "peak": 1000}

    monkeypatch.setattr(train_step, "start", Side)


def test_a_line_for_each_side(monkeypatch):
    fake(monkeypatch, {"jaxlm": 6.0, "torch": 6.01, "compiled": 6.02})
    lines = train_step.compare("gpu", "bfloat16", 50_304, 3)
    assert [line.split()[2] for line in lines] == ["jaxlm", "torch", "compiled"]
    assert lines[0].split()[3:] == ["65,536", "1", "2.0", "1,000"]
    assert lines[1].split()[3:] == ["32,768", "2.00", "(2.00-2.00)", "2.0", "1,000"]
    assert len(train_step.compare("cpu", "bfloat16", 512, 1)) == 2


def test_sides_that_disagree(monkeypatch):
    fake(monkeypatch, {"jaxlm": 6.0, "torch": 6.01})
    with pytest.raises(AssertionError):
        train_step.compare("cpu", "float32", 512, 1)
