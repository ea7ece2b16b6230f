"""The special tokens of a tokenizer, and of one that is yet to be trained."""

from __future__ import annotations

from jaxlm.config.data import SentencePiece, Whitespace, WordPiece
from jaxlm.config.data import Tokenizer as Config
from jaxlm.config.special import BASIC, MASKS, Special, more
from jaxlm.tokenizers.build import given
from jaxlm.tokenizers.bytes import PLAIN, ByteTokenizer
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer
from jaxlm.tokenizers.protocol import Tokenizer
from jaxlm.tokenizers.sentencepiece import SentencePieceTokenizer
from jaxlm.tokenizers.word_training import BERTS


def special(config: Config) -> Special:
    """What the config alone tells, or the file that it names.

    The vocabulary of a tokenizer that is to be trained may come out smaller. Raises as `build.given` does.
    """
    if (found := given(config)) is not None:
        return of(found)
    names = more(config.special, config.sentinels)
    match config:
        case SentencePiece() | Whitespace():
            pad, _, bos, eos = range(len(BASIC))
            return Special(config.vocab, pad, bos, eos, _numbered(names, len(BASIC)))
        case WordPiece():
            pad, _, bos, eos, _ = range(len(BERTS))
            return Special(config.vocab, pad, bos, eos, _numbered((MASKS[0], *names), len(BERTS) - 1))


def of(tokenizer: Tokenizer) -> Special:
    """Of a tokenizer that is there."""
    return Special(tokenizer.vocab, tokenizer.pad, tokenizer.bos, tokenizer.eos, _others(tokenizer))


def _others(tokenizer: Tokenizer) -> tuple[tuple[str, int], ...]:
    match tokenizer:
        case ByteTokenizer():
            return _numbered(tokenizer.special, PLAIN)
        case SentencePieceTokenizer():
            return tuple(tokenizer.control.items())
        case HuggingFaceTokenizer():
            found = {name: tokenizer.library.token_to_id(name) for name in tokenizer.special}
            if tokenizer.mask is not None:  # whatever its name
                found = {MASKS[0] if token == tokenizer.mask else name: token for name, token in found.items()}
            known = (tokenizer.pad, tokenizer.bos, tokenizer.eos, tokenizer.unknown)
            return tuple((name, token) for name, token in found.items() if token not in known)
    return ()


def _numbered(names: tuple[str, ...], first: int) -> tuple[tuple[str, int], ...]:
    return tuple((name, first + number) for number, name in enumerate(names))
