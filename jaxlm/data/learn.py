"""A tokenizer of text files, as a directory of its own."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from jaxlm.config.data import TextFiles
from jaxlm.config.data import Tokenizer as Config
from jaxlm.config.errors import Failure
from jaxlm.corpus import documents
from jaxlm.tokenizers.build import given, learned
from jaxlm.tokenizers.protocol import Tokenizer
from jaxlm.tokenizers.publish import exported
from jaxlm.tokenizers.special import of

SHOWN = 2_000_000
"""Characters of which the summary is made."""


def learn(config: Config, source: TextFiles, directory: Path) -> tuple[list[str], Tokenizer, str]:
    """(texts, tokenizer trained on them, remark) after writing it to a new directory, whole or not at all.

    Raises Failure for a file that is no text or cannot be written, and what the training functions raise.
    """
    texts = [_text(one.name, one.raw) for one in documents(source)] if source.paths else []
    tokenizer = given(config) or learned(config, texts)
    files, remark = exported(tokenizer)
    partial = directory.with_name(f"{directory.name}.{uuid.uuid4().hex}.tmp")
    try:
        partial.mkdir(parents=True)
        for name, content in files.items():
            (partial / name).write_bytes(content)
        partial.rename(directory)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise Failure(f"cannot write {str(directory)!r}: {error.strerror}") from error
    return texts, tokenizer, remark


def summary(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    """Its size, its special tokens, and what it makes of the first of the texts."""
    special = of(tokenizer)
    named = {"padding": special.pad, "beginning": special.bos, "end": special.eos} | dict(special.others)
    shown = [f"{name} {token}" for name, token in named.items()]
    if len(shown) > 12:
        shown = [*shown[:8], f"... {shown[-1]}"]
    lines = [f"{tokenizer.vocab:,} tokens; special ones: {', '.join(shown)}"]
    kept, left = [], SHOWN
    for text in texts:
        kept, left = [*kept, text[:left]], left - len(text)
        if left <= 0:
            break
    if size := sum(len(text.encode()) for text in kept):
        encoded = tokenizer.encode_batch(kept)
        same = sum(tokenizer.decode(ids) == text for ids, text in zip(encoded, kept))
        each = size / sum(map(len, encoded))
        lines.append(
            f"{size / 1e6:.2f} MB: {each:.2f} bytes a token; {same} of {len(kept)} texts come back exactly"
        )
    return lines


def _text(name: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Failure(f"{name!r} is not UTF-8 text: {error}") from None
