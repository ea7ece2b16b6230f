"""Files of a run directory, local or in an object store: atomic writes, one line for what goes wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from jaxlm.config.errors import Failure


def is_local(path: Any) -> bool:
    """Whether a path is on a file system, where files can be renamed, locked and appended to."""
    return "://" not in os.fspath(path)


@contextlib.contextmanager
def explained(path: Any, action: str = "write") -> Iterator[None]:
    """Turns what the operating system or a store's client raises into a Failure of one line."""
    try:
        yield
    except OSError as error:
        raise Failure(f"cannot {action} {error.filename or path}: {error.strerror or error}") from error
    except ImportError as error:
        hint = "pip install gcsfs (gs://) or s3fs (s3://)"
        raise Failure(f"cannot {action} {path}: {error}; object stores need {hint}") from error


def write_atomically(path: Any, text: str) -> None:
    """A reader sees the whole text or the file as it was, even if the machine stops. Raises Failure."""
    with explained(path):
        if not is_local(path):  # an object appears whole or not at all
            path.write_text(text)
            return
        part = f"{os.fspath(path)}.{os.getpid()}.tmp"
        try:
            with open(part, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
        with contextlib.suppress(OSError):  # not every file system lets a directory be synced
            directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
