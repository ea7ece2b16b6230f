"""Which of a teacher's answers are worth learning from: filters, and how many each of them dropped.

A check is a pure function `sample -> verdict`, where a verdict is None (keep) or the reason to drop. A filter gives
the verdicts of many samples: `each` makes one of a check, and those that compare samples with each other are
filters themselves. `reject` applies them in turn, so that each sees only what the ones before it left.
Rejection sampling keeps the answers of many that are right and differ (RFT, arXiv:2308.01825).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxlm.corpus.answers import extract, final_number
from jaxlm.corpus.deduplicate import key
from jaxlm.distill.sample import Sample

Verdict = str | None
Check = Callable[[Sample], Verdict]
Filter = Callable[[Sequence[Sample]], Sequence[Verdict]]


@dataclass(frozen=True)
class Step:
    """What one filter did."""

    name: str
    seen: int
    reasons: Mapping[str, int]
    """How many were dropped, by why."""

    @property
    def dropped(self) -> int:
        """For all reasons together."""
        return sum(self.reasons.values())


def reject(samples: Sequence[Sample], filters: Mapping[str, Filter]) -> tuple[list[Sample], list[Step]]:
    """The samples that all filters keep, in order, and what each filter did."""
    left, steps = list(samples), []
    for name, verdicts_of in filters.items():
        verdicts = verdicts_of(left)
        steps.append(Step(name, len(left), dict(Counter(one for one in verdicts if one is not None))))
        left = [sample for sample, verdict in zip(left, verdicts, strict=True) if verdict is None]
    return left, steps


def each(check: Check) -> Filter:
    """The filter that asks a check of every sample by itself."""
    return lambda samples: [check(sample) for sample in samples]


def finished(sample: Sample) -> Verdict:
    """Ended by the teacher itself: an answer cut at its most tokens teaches to stop anywhere."""
    reasons = {"stop": None, "length": "cut at the most tokens", "content_filter": "cut by a content filter"}
    return reasons.get(sample.finish_reason, f"ended by {sample.finish_reason}")


def parsed(pattern: str) -> Check:
    """A regular expression is found in the text, which is not empty."""
    compiled = re.compile(pattern, re.DOTALL)

    def check(sample: Sample) -> Verdict:
        if not sample.text.strip():
            return "empty"
        return None if compiled.search(sample.text) else "does not match"

    return check


def long_enough(shortest: int, longest: int) -> Check:
    """Characters, both included; `longest` 0 is any."""

    def check(sample: Sample) -> Verdict:
        if len(sample.text) < shortest:
            return "too short"
        return "too long" if longest and len(sample.text) > longest else None

    return check


def right_number(sample: Sample) -> Verdict:
    """The last number is that of the right answer, as GSM8K is scored (arXiv:2110.14168): "$1,000.00" is 1000."""
    found = final_number(sample.text)
    if found is None:
        return "no number"
    return None if found == final_number(sample.prompt.answer) else "another number"


def right_text(pattern: str) -> Check:
    """What a pattern finds last, without white space around it, is the right answer; "" compares the whole text."""

    def check(sample: Sample) -> Verdict:
        found = extract(sample.text, pattern, "last")
        if found is None:
            return "no answer"
        return None if found == sample.prompt.answer.strip() else "another answer"

    return check


def distinct(samples: Sequence[Sample]) -> list[Verdict]:
    """No answer to the same messages twice; case and white space make no difference."""
    met: set[tuple[str, str]] = set()
    verdicts: list[Verdict] = []
    for sample in samples:
        place = (repr([(one["role"], one["content"]) for one in sample.prompt.messages]), key(sample.text))
        verdicts.append("said before" if place in met else None)
        met.add(place)
    return verdicts
