"""Numbers that messages advise."""

import pytest

from jaxlm.config.numbers import divisors, nearest_multiples


@pytest.mark.parametrize(
    ("count", "unit", "text"), [(13, 8, "8 or 16"), (16, 8, "16"), (3, 8, "8"), (17, 8, "16 or 24")]
)
def test_nearest_multiples(count, unit, text):
    assert nearest_multiples(count, unit) == text


def test_divisors():
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert divisors(1) == [1]
