"""Tokens that stand for no text."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from jaxlm.config.errors import UsageError

BASIC = ("<pad>", "<unk>", "<s>", "</s>")
"""Tokens 0 to 3 of every vocabulary that is trained here but WordPiece's."""
MASKS = ("<mask>", "[MASK]")
"""Names of the token that stands for a hidden one."""
SENTINEL = re.compile(r"<extra_id_(\d+)>")
"""Names of the tokens that stand for hidden spans, as T5's."""


@dataclass(frozen=True)
class Special:
    """A vocabulary's special tokens, as objectives need them."""

    vocab: int
    """Tokens in all."""
    pad: int
    bos: int
    eos: int
    others: tuple[tuple[str, int], ...] = ()
    """(Name, token) of each special one that is none of the three."""

    @property
    def ids(self) -> tuple[int, ...]:
        """All special tokens, in order."""
        return tuple(sorted({self.pad, self.bos, self.eos, *(token for _, token in self.others)}))

    def beginning(self, start: int | None) -> Special:
        """With `start` for BOS, where the targets of a model begin with it; what was BOS stays special."""
        if start is None or start == self.bos:
            return self
        return replace(self, bos=start, others=(*self.others, ("bos", self.bos)))

    def mask(self, purpose: str) -> int:
        """The token that stands for a hidden one. Raises UsageError that names the `purpose`."""
        found = [token for name, token in self.others if name in MASKS]
        if not found:
            raise UsageError(
                f"{purpose} needs a mask token, and the tokenizer has none: train one with --tokenizer.special "
                f"{MASKS[0]!r}"
            )
        return found[0]

    def sentinels(self, count: int, purpose: str) -> tuple[int, ...]:
        """The first `count` tokens that stand for hidden spans. Raises UsageError that says how many are needed."""
        numbers = {int(found[1]): token for name, token in self.others if (found := SENTINEL.fullmatch(name))}
        missing = [number for number in range(count) if number not in numbers]
        if missing:
            raise UsageError(
                f"{purpose} needs {count} sentinel tokens (<extra_id_0> to <extra_id_{count - 1}>), and the "
                f"tokenizer has {count - len(missing)} of them: train one with --tokenizer.sentinels {count}"
            )
        return tuple(numbers[number] for number in range(count))

    def named(self, names: tuple[str, ...], purpose: str) -> tuple[int, ...]:
        """The tokens of these names. Raises UsageError that lists those that are missing."""
        found = dict(self.others)
        missing = [name for name in names if name not in found]
        if missing:
            raise UsageError(
                f"{purpose} needs the special tokens {', '.join(names)}, and the tokenizer has no "
                f"{', '.join(missing)}: train one with --tokenizer.special {' '.join(names)}"
            )
        return tuple(found[name] for name in names)


def more(special: tuple[str, ...], sentinels: int) -> tuple[str, ...]:
    """The names of a trained tokenizer's own special tokens, in the order of their ids.

    Raises UsageError for names that are empty, hold white space or a comma, or stand twice.
    """
    names = (*special, *(f"<extra_id_{number}>" for number in range(sentinels)))
    for name in names:
        if not name or "," in name or name.split() != [name]:
            raise UsageError(f"tokenizer.special: {name!r} is no name of a token: no white space, no comma")
        if name in BASIC or names.count(name) > 1:
            raise UsageError(f"tokenizer.special: {name!r} is a special token already")
    return names
