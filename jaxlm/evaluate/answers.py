"""Answers in drawn texts: normalized and compared; `corpus.answers` finds them."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from jaxlm.config.tasks import Normalization
from jaxlm.corpus.answers import number

PUNCTUATION = str.maketrans("", "", string.punctuation)
DIGITS = str.maketrans("", "", string.digits)
ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize(text: str, how: Normalization) -> str:
    """The text without what does not matter."""
    for pattern in how.ignore:
        text = re.sub(pattern, "", text)
    text = text.lower() if how.lowercase else text
    text = text.translate(PUNCTUATION) if how.punctuation else text
    text = text.translate(DIGITS) if how.digits else text
    text = ARTICLES.sub(" ", text) if how.articles else text
    return " ".join(text.split()) if how.spaces else text


def exact_match(found: str, right: Sequence[str], how: Normalization) -> float:
    """1 where an answer is one of the right ones once all are normalized, else 0."""
    return float(any(normalize(found, how) == normalize(one, how) for one in right))


def same_number(found: str, right: Sequence[str]) -> float:
    """1 where an answer is a right one as a number, else 0; "$1,000." is 1000."""
    value = number(found)
    return float(value is not None and any(value == number(one) for one in right))


def f1(found: str, right: Sequence[str], how: Normalization) -> float:
    """The harmonic mean of precision and recall of an answer's words, with the right answer where it is largest
    (SQuAD, arXiv:1606.05250, section 6.1).
    """
    return max((_f1(normalize(found, how).split(), normalize(one, how).split()) for one in right), default=0.0)


def _f1(found: list[str], right: list[str]) -> float:
    shared = sum((Counter(found) & Counter(right)).values())
    if not found or not right:
        return float(found == right)
    return 2 * shared / (len(found) + len(right))


def pass_at(k: int, right: int, samples: int) -> float:
    """The chance that of k samples drawn from these at least one is right: 1 - C(n - c, k) / C(n, k), without bias
    (Chen et al. 2021, arXiv:2107.03374, equation 1).
    """
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def vote(answers: Sequence[str | None], same: Callable[[str], Hashable] = str) -> str | None:
    """The commonest answer, the first to appear of equally common ones; what holds no answer does not vote
    (self-consistency, arXiv:2203.11171, section 2).

    Answers count as one where `same` gives the same of them, and as none where that is None.
    """
    groups: dict[Hashable, list[str]] = {}
    for one in answers:
        if one is not None and (key := same(one)) is not None:
            groups.setdefault(key, []).append(one)
    return max(groups.values(), key=len)[0] if groups else None
