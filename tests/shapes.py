"""Array shapes and dtypes of every function, checked as the tests run."""

from collections.abc import Callable

from beartype import beartype


def check(function: Callable) -> Callable:
    """Check arguments and results against their hints.

    Constructors are left alone: a pytree is rebuilt with shardings, names or None in place of its arrays, and the
    functions that take the arrays check them.
    """
    return function if function.__name__ == "__init__" else beartype(function)
