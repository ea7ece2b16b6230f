"""The two ways to say no: both carry one message for the user, and no traceback is shown with it."""

from __future__ import annotations

AGAIN = 75
"""Exit code: saved, run me again."""


class UsageError(Exception):
    """The request cannot be understood or cannot work as asked: what, where, what to do. Exit code 2."""


class Failure(Exception):
    """The request was right but the world was not (a full disk, a damaged file). Exit code 1."""
