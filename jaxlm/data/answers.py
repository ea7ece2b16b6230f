"""Conversations as documents of tokens, of which the answers are to be predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxlm.config import data as config
from jaxlm.config.errors import Failure, UsageError
from jaxlm.corpus import messages
from jaxlm.data.dataset import Tokenized
from jaxlm.tokenizers import Tokenizer
from jaxlm.tokenizers.answers import Answered, by_template, joined
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer

VERSION = 1
"""Counts up when the same conversation would become other tokens."""


class Form(NamedTuple):
    """How messages become one text: a chat template, or what stands between them."""

    template: str
    between: str


@dataclass(frozen=True)
class Answers:
    """How conversations of at most so many tokens become documents."""

    form: Form
    longest: int | None

    def tokenized(
        self, documents: Iterable[str], tokenizer: Tokenizer, report: Callable[[str], None]
    ) -> Iterator[Tokenized]:
        """Those that are not too long; who counts documents knows how many were."""
        return tokenized(documents, tokenizer, self.form, self.longest)

    def said(self, documents: Iterable[str]) -> Iterator[str]:
        """The answers."""
        return said(documents)


def form(data: config.Data, tokenizer: Tokenizer | None) -> Form | None:
    """The form of conversations; None for data of another kind.

    Raises UsageError for a tokenizer that has no chat template where one is asked for, or a template's file that is
    not there.
    """
    if not isinstance(data, config.Conversations):
        return None
    match data.form:
        case config.Joined(between):
            return Form("", between)
        case config.ChatTemplate(path):
            if not isinstance(tokenizer, HuggingFaceTokenizer):
                raise UsageError("data.form: this tokenizer takes no chat template; choose data.form:joined")
            template = _read(path) if path else tokenizer.template
            if not template:
                raise UsageError(
                    "data.form: the tokenizer has no chat template: name one with --data.form.path FILE, or choose "
                    "data.form:joined"
                )
            return Form(template, "")


def tokenized(texts: Iterable[str], tokenizer: Tokenizer, form: Form, longest: int | None) -> Iterator[Tokenized]:
    """Conversations of at most `longest` tokens, as `corpus.conversations` writes them.

    A template in the form is the tokenizer's by now.
    """
    for number, text in enumerate(texts, start=1):
        try:
            found = _answered(text, tokenizer, form)
        except Failure as error:
            raise Failure(f"conversation {number} ({text[:80]}...): {error}") from None
        if longest is None or len(found.ids) <= longest:
            yield Tokenized(*found)


def said(texts: Iterable[str]) -> Iterator[str]:
    """The answers of conversations."""
    for text in texts:
        yield "\n".join(one["content"] for one in messages(text) if one["role"] == config.ASSISTANT)


def _answered(text: str, tokenizer: Tokenizer, form: Form) -> Answered:
    if form.template:
        return by_template(tokenizer, messages(text))
    return joined(tokenizer, messages(text), form.between)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"data.form.path: cannot read {path!r} ({error})") from None
