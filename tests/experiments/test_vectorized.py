"""The comparison of ways to train several runs: those that agree make a table, others end it."""

import pytest

from tests.experiments.scripts import load

vectorized = load("vectorized")


def fake(monkeypatch, losses):
    """Ways nobody ran, with these last losses where they are named; in turn takes 1 s a step, the others 0.5 s."""

    class Side:
        def __init__(self, way, *_):
            self.way, self.facts = way, {"compile": 2.0}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def turn(self):
            seconds = 1.0 if self.way == "in turn" else 0.5
            return {"seconds": seconds, "processor": 0.9, "losses": [5.0, losses.get(self.way, 6.0)]}

    monkeypatch.setattr(vectorized, "start", Side)


def test_a_line_for_each_way(monkeypatch):
    fake(monkeypatch, {"devices": 6.001})
    first, *_, last = vectorized.compare(64, 2, 4, 3)
    assert first.split() == ["64", "in", "turn", "1,024", "1", "1,000", "900", "2.0"]
    assert last.split() == ["64", "4", "devices", "2,048", "2.00", "(2.00-2.00)", "500", "900", "2.0"]


def test_ways_that_disagree(monkeypatch):
    fake(monkeypatch, {"one device": 6.1})
    with pytest.raises(AssertionError):
        vectorized.compare(64, 2, 4, 3)
