"""Whether a teacher's distributions are over the student's tokens."""

from __future__ import annotations

from jaxlm.config.errors import UsageError
from jaxlm.tokenizers.protocol import Tokenizer


def shared_tokens(student: Tokenizer, teacher: Tokenizer) -> int:
    """How many tokens both have, from 0 on; those after them only one has.

    Raises UsageError that names the first token that is not the same to both: its text, or what it begins or ends.
    """
    count = min(student.vocab, teacher.vocab)
    if student.fingerprint == teacher.fingerprint:
        return count
    for name in ("pad", "bos", "eos"):
        own, hers = getattr(student, name), getattr(teacher, name)
        if own != hers:
            raise UsageError(f"the student's {name} is token {own} and the teacher's {hers}: {_instead()}")
    for token in range(count):
        own, hers = student.bytes_of([token]), teacher.bytes_of([token])
        if own != hers:
            raise UsageError(f"token {token} is {own!r} to the student and {hers!r} to the teacher: {_instead()}")
    return count


def _instead() -> str:
    return (
        "distributions over other tokens cannot be compared; give the student the teacher's tokenizer, or train it "
        "on texts that the teacher writes"
    )
