"""How a process finds the others: three variables, all or none."""

import pytest

from jaxlm.cluster.discovery import VARIABLES, processes
from jaxlm.config.errors import UsageError


def given(*values: str) -> dict[str, str]:
    return dict(zip(VARIABLES, values))


def test_one_process_needs_nothing():
    assert processes({}) is None
    assert processes(given("", "", "")) is None


def test_all_three():
    assert processes(given("10.0.0.1:8476", "16", "15")) == ("10.0.0.1:8476", 16, 15)


@pytest.mark.parametrize("missing", VARIABLES)
def test_one_missing_is_named(missing):
    environment = given("a:1", "2", "0")
    del environment[missing]
    with pytest.raises(UsageError, match=f"{missing} is not"):
        processes(environment)


@pytest.mark.parametrize(
    "values", [("a", "2", "0"), ("a:1", "two", "0"), ("a:1", "2", "2"), ("a:1", "2", "-1"), ("a:1", "0", "0")]
)
def test_nonsense_is_refused(values):
    with pytest.raises(UsageError, match=r"expected host:port, a number, and one below it"):
        processes(given(*values))
