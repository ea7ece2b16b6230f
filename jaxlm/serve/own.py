"""A file of the texts that a model writes itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlm.config.errors import UsageError
from jaxlm.distill.own import Writing, own_texts
from jaxlm.layers.contracts import Call, Model
from jaxlm.runs.files import explained
from jaxlm.tokenizers import Tokenizer


def write(
    path: Path, model: Model, tokenizer: Tokenizer, writing: Writing, call: Call, origin: dict[str, Any]
) -> Iterator[int]:
    """Writes each text as a line {"text", "origin"} of a file; yields how many there are after each batch.

    What a stopped command has written is kept, up to a torn line. Raises UsageError for a file that is of another
    origin, Failure where it cannot be written.
    """
    there = _lines(path, origin)
    done = len(there)
    if done >= writing.texts:
        yield done
        return
    with explained(path), path.open("w" if not done else "r+", encoding="utf-8") as file:
        file.seek(sum(len(line) + 1 for line in there))
        file.truncate()
        for texts in own_texts(model, tokenizer, writing, call, done):
            for text in texts:
                file.write(json.dumps({"text": text, "origin": origin}, ensure_ascii=False) + "\n")
            file.flush()
            done += len(texts)
            yield done


def _lines(path: Path, origin: dict[str, Any]) -> list[bytes]:
    """The whole lines that are there. Raises UsageError for those of another origin."""
    if not path.exists():
        return []
    with explained(path, "read"):
        *whole, _ = path.read_bytes().split(b"\n")  # what follows the last end of a line is torn, or nothing
    for number, line in enumerate(whole, 1):
        try:
            theirs = json.loads(line)["origin"]
        except (ValueError, KeyError, TypeError):
            theirs = None
        if theirs != origin:
            raise UsageError(
                f"{path}, line {number}: not what this model writes with these options: choose another file"
            )
    return whole
