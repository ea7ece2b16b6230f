"""Texts that a model writes itself, to be trained on where its data are not at hand (LLM-QAT, Liu et al. 2023,
arXiv:2305.17888, section 2.1).

A text begins with a token drawn at random from all that stand for text. The next few are the likeliest, so that
what follows is about something, and the rest is drawn from the model's own distribution until it ends the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxlm.config.errors import UsageError
from jaxlm.config.sampling import Options
from jaxlm.layers.contracts import Call, Model
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.sampling.several import Drawn, asked, several
from jaxlm.tokenizers import Tokenizer


@dataclass(frozen=True)
class Writing:
    """How much is written, and how."""

    texts: int = 1000
    tokens: int = 256
    """Of a text at most, the first one included."""
    likeliest: int = 4
    """Tokens after the first that are the likeliest ones (the paper: 3 to 5)."""
    temperature: float = 1.0
    seed: int = 0
    batch: int = 16
    """Texts that are written at once; of what is written it changes nothing but rounding errors."""


def own_texts(
    model: Model, tokenizer: Tokenizer, writing: Writing, call: Call, first: int = 0
) -> Iterator[list[str]]:
    """The texts from number `first` on, a batch at a time; each follows from the seed and its number alone.

    Raises UsageError for an encoder-decoder, and for numbers outside their range.
    """
    _check(model, writing)
    starts = _starting_tokens(tokenizer)
    likeliest = Options(writing.likeliest, temperature=0.0, seed=writing.seed)
    rest = Options(writing.tokens - 1 - writing.likeliest, temperature=writing.temperature, seed=writing.seed)

    def continued(written: list[Written], options: Options) -> list[Written]:
        prompts = asked(model, tokenizer, [one.ids for one in written], options, call)
        answers = several(model, tokenizer, prompts, options, call, stop=tokenizer.eos)
        return [one.continued(answer) for one, answer in zip(written, answers, strict=True)]

    for begin in range(first, writing.texts, writing.batch):
        # A last batch that is smaller would be another program: it is filled up, and cut after.
        numbers = range(begin, begin + writing.batch)
        generators = (np.random.default_rng((writing.seed, number)) for number in numbers)
        written = [Written((tokenizer.bos, int(generator.choice(starts)))) for generator in generators]
        if writing.likeliest:
            written = continued(written, likeliest)
        written = continued(written, rest)
        yield [tokenizer.decode(one.ids[1:]) for one in written][: writing.texts - begin]


@dataclass(frozen=True)
class Written:
    """A text as far as it is written."""

    ids: tuple[int, ...]
    """BOS in front."""
    ended: bool = False

    def continued(self, answer: Drawn) -> Written:
        """With what the model wrote next, unless it had ended."""
        return self if self.ended else Written((*self.ids, *answer.ids), answer.stopped)


def _check(model: Model, writing: Writing) -> None:
    if isinstance(model, EncoderDecoder):
        raise UsageError("an encoder-decoder writes about a source: it has no texts of its own")
    least = {"texts": 1, "likeliest": 0, "batch": 1, "seed": 0, "tokens": writing.likeliest + 2}
    for name, low in least.items():
        if getattr(writing, name) < low:
            raise UsageError(f"{name} is {getattr(writing, name)}: expected at least {low}")


def _starting_tokens(tokenizer: Tokenizer) -> np.ndarray:
    """All that stand for text by themselves."""
    return np.array([token for token in range(tokenizer.vocab) if tokenizer.bytes_of([token])])
