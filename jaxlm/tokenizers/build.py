"""From a tokenizer's config to the tokenizer, and a tokenizer's files in a run."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxlm.config.data import (
    Bytes,
    Gpt2Files,
    SentencePiece,
    SentencePieceFile,
    TokenizerJson,
    Trained,
    Whitespace,
    WordPiece,
    WordPieceFile,
    kept,
)
from jaxlm.config.data import Tokenizer as Config
from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.special import more
from jaxlm.tokenizers import tokenizer_json, vocabularies, word_training
from jaxlm.tokenizers.bytes import ByteTokenizer
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer
from jaxlm.tokenizers.protocol import Tokenizer
from jaxlm.tokenizers.publish import published
from jaxlm.tokenizers.sentencepiece import SentencePieceTokenizer, load
from jaxlm.tokenizers.sentencepiece_training import train

MODEL = "tokenizer.model"


def given(config: Config) -> Tokenizer | None:
    """The tokenizer of a config that needs no text; None where it has to be trained.

    Raises UsageError for a missing file, Failure for a damaged one.
    """
    match config:
        case Bytes(special=special, sentinels=sentinels):
            return ByteTokenizer(more(special, sentinels))
        case SentencePieceFile(path=path):
            return load(path)
        case TokenizerJson():
            return tokenizer_json.load(config)
        case Gpt2Files():
            return vocabularies.gpt2(config)
        case WordPieceFile():
            return vocabularies.wordpiece(config)
        case SentencePiece() | Whitespace() | WordPiece():
            return None
    raise UsageError(f"tokenizer: no builder for {type(config).__name__}")


def build(config: Config, texts: Callable[[], Sequence[str]], directory: Path) -> Tokenizer:
    """The tokenizer of `config`, trained on `texts()` if it has to be.

    A trained one is kept in `directory`, written atomically, and read from there the next time: give each
    (config, texts) a directory of its own. Raises what `given` and the training functions raise.
    """
    if (found := given(config)) is not None:
        return found
    name = MODEL if isinstance(config, SentencePiece) else tokenizer_json.NAME
    if not (directory / name).exists():
        keep(learned(config, texts()), directory)
    return reopen(config, directory)


def learned(config: Trained, texts: Sequence[str]) -> Tokenizer:
    """The tokenizer of a config, trained on texts. Raises what the training functions raise."""
    special = more(config.special, config.sentinels)
    match config:
        case SentencePiece(kind=kind, vocab=vocab):
            return train(texts, kind, vocab, special)
        case Whitespace(vocab=vocab):
            return word_training.words(texts, vocab, special)
        case WordPiece(vocab=vocab, lowercase=lowercase):
            return word_training.wordpiece(texts, vocab, lowercase=lowercase, special=special)


def keep(tokenizer: Tokenizer, directory: Path) -> None:
    """Copies a tokenizer to a place of its own, so that a run does not depend on where it was made.

    Raises Failure where another is kept already: the file that the run was begun with has changed.
    """
    match tokenizer:
        case SentencePieceTokenizer():
            files, before = {MODEL: tokenizer.model}, lambda: load(directory / MODEL)
        case HuggingFaceTokenizer():
            files, before = published(tokenizer), lambda: tokenizer_json.load(TokenizerJson(str(directory)))
        case _:
            return
    main = MODEL if MODEL in files else tokenizer_json.NAME
    same = all((directory / name).exists() and (directory / name).read_bytes() == files[name] for name in files)
    if (directory / main).exists() and not same and before().fingerprint != tokenizer.fingerprint:
        raise Failure(
            f"{str(directory)!r} holds another tokenizer than the one that is read now: put back the file that the "
            f"run was begun with, or begin another run"
        )
    for name in sorted(files, key=lambda name: name == main):  # what `build` asks for, last
        _write(directory / name, files[name])


def reopen(config: Config, directory: Path) -> Tokenizer:
    """The tokenizer that `keep` put there. Raises UsageError when it is gone, Failure when it is damaged."""
    return given(kept(config, directory))


def _write(path: Path, model: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{uuid.uuid4().hex}")
    partial.write_bytes(model)
    os.replace(partial, path)
