"""Tables of README are of what the tests have recorded."""

import pytest

from tests.experiments.scripts import load

tables, objectives = load("tables"), load("objectives")


def test_only_the_block_is_replaced():
    text = "before\n<!-- a -->\nold\n<!-- /a -->\n<!-- b -->\n<!-- /b -->\nafter"
    assert tables.put(text, "a", "new\n") == text.replace("old", "new")
    assert tables.put(text, "b", "new\n") == text.replace("<!-- b -->\n", "<!-- b -->\nnew\n")
    with pytest.raises(ValueError, match="not enough values"):
        tables.put("before", "a", "new\n")


def test_architectures_and_what_they_take():
    found = [{"architecture": a, "objective": o} for a, o in (("one", "x"), ("one", "y"), ("two", "y"))]
    head, _, one, two = objectives.architectures(found).splitlines()
    assert (head, one, two) == ("| | `x` | `y` |", "| one | x | x |", "| two |  | x |")


def test_what_is_measured_of_an_objective_is_in_its_row():
    found = [{"objective": "x", "lowers": "tpu"}, {"objective": "x", "meshes": 3e-7}]
    found += [{"objective": "y", "meshes": 0.0}, {"objective": "x", "resumes": "bit for bit"}]
    found += [{"objective": "x", "lowers": "cuda"}]
    *_, x, y = objectives.meshes(found).splitlines()
    assert x == "| `x` | 3e-07 off | bit for bit | tpu, cuda |"
    assert y == "| `y` | 0e+00 off |  |  |", "a gap is seen"
    *_, x = objectives.optima(
        [{"objective": "x", "optimum": 1.0042}, {"objective": "x", "control": 2}]
    ).splitlines()
    assert x == "| `x` | 1.004 | 2.000 |"
