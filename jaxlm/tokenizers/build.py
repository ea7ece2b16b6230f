"""From a tokenizer's config to the tokenizer."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxlm.config.data import Bytes, SentencePiece, SentencePieceFile
from jaxlm.config.data import Tokenizer as Config
from jaxlm.config.errors import UsageError
from jaxlm.tokenizers.bytes import ByteTokenizer
from jaxlm.tokenizers.protocol import Tokenizer
from jaxlm.tokenizers.sentencepiece import load, train

MODEL = "tokenizer.model"


def build(config: Config, texts: Callable[[], Sequence[str]], directory: Path) -> Tokenizer:
    """The tokenizer of `config`, trained on `texts()` if it has to be.

    A trained model is kept as `directory/tokenizer.model`, written atomically, and read from there the next
    time: give each (config, texts) a directory of its own. Raises what `train` and `load` raise.
    """
    match config:
        case Bytes():
            return ByteTokenizer()
        case SentencePieceFile(path=path):
            return load(path)
        case SentencePiece(kind=kind, vocab=vocab):
            path = directory / MODEL
            if not path.exists():
                model = train(texts(), kind, vocab).model
                directory.mkdir(parents=True, exist_ok=True)
                _write(path, model)
            return load(path)
    raise UsageError(f"tokenizer: no builder for {type(config).__name__}")


def keep(tokenizer: Tokenizer, directory: Path) -> None:
    """Copy a trained tokenizer to a place of its own, so that a run does not depend on where it was made."""
    if not isinstance(tokenizer, ByteTokenizer):
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory / MODEL, tokenizer.model)


def reopen(config: Config, directory: Path) -> Tokenizer:
    """The tokenizer that `keep` put there. Raises UsageError when it is gone, Failure when it is damaged."""
    return ByteTokenizer() if isinstance(config, Bytes) else load(directory / MODEL)


def _write(path: Path, model: bytes) -> None:
    partial = path.with_suffix(f".{uuid.uuid4().hex}")
    partial.write_bytes(model)
    os.replace(partial, path)
