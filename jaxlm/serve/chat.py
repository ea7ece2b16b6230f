"""A conversation with a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from jaxlm.config.data import ASSISTANT
from jaxlm.config.errors import UsageError
from jaxlm.config.sampling import Options, as_trained
from jaxlm.layers.contracts import Call
from jaxlm.runs.directory import read_experiment
from jaxlm.sampling.text import answer
from jaxlm.tokenizers.answers import end_of_turn
from jaxlm.tokenizers.conversation import begun, encode
from jaxlm.tokenizers.huggingface import HuggingFaceTokenizer


@dataclass
class Chat:
    """What has been said so far, and by whom it is answered."""

    model: Any
    tokenizer: HuggingFaceTokenizer
    call: Call
    options: Options
    stop: int
    """The token that ends an answer."""
    messages: list[dict[str, str]] = field(default_factory=list)

    def say(self, text: str) -> Iterator[str]:
        """The model's answer, piece by piece. Raises UsageError for a conversation that is too long for it."""
        asked = [*self.messages, {"role": "user", "content": text}]
        prompt = begun(self.tokenizer, encode(self.tokenizer, asked, generation=True))
        pieces = []
        for piece in answer(self.model, self.tokenizer, prompt.ids, self.options, self.call, self.stop):
            pieces.append(piece)
            yield piece
        self.messages = [*asked, {"role": ASSISTANT, "content": "".join(pieces)}]


def open_chat(run: str, options: Options, system: str = "") -> Chat:
    """A conversation with the newest checkpoint of a run, written by its tokenizer's chat template.

    Raises UsageError for a tokenizer without one.
    """
    from jaxlm.train.load import load_run

    model, tokenizer, call = load_run(run)
    if not isinstance(tokenizer, HuggingFaceTokenizer) or not tokenizer.template:
        raise UsageError(f"{run}: its tokenizer has no chat template; jaxlm generate goes on with a text")
    instructions = [{"role": "system", "content": system}] if system else []
    options = as_trained(options, read_experiment(run))
    return Chat(model, tokenizer, call, options, end_of_turn(tokenizer), instructions)
