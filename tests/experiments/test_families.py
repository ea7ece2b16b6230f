"""The table of families is of what the tests have recorded."""

import pytest

from tests.experiments.scripts import load

families = load("families")


def compared(name, difference, unit, apart):
    return {"model_type": name, "difference": difference, "unit": unit, "control": "theta", "apart": apart}


RECORDS = [
    compared("llama", 3e-6, 1.0, 0.5),
    compared("llama", 6e-6, 4.0, 0.25),
    {"model_type": "llama", "reload": "bitwise"},
    {"model_type": "llama", "reload": "bitwise"},
]


def test_a_row_is_of_the_worst_configuration():
    *_, row = families.table(RECORDS).splitlines()
    assert row == "| `llama` | 2 | 6.0e-06 | 3.0e-06 | 0.25 (theta) | bitwise |"


def test_what_was_only_compared_has_no_row():
    with pytest.raises(ValueError, match="llama: 2 compared, 1 reloaded"):
        families.table(RECORDS[:3])
