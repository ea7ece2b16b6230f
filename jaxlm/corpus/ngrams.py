"""Runs of words as 64-bit hashes, for whole documents at once."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt64

WORD = re.compile(r"\w+")


def words(texts: Sequence[str]) -> list[Int[np.ndarray, " words"]]:
    """Words (runs of letters, digits and underscores, case folded) as numbers that all the texts share."""
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__  # An unseen word gets the next number.
    return [np.array([numbers[word] for word in WORD.findall(text.casefold())], np.int64) for text in texts]


def hashes(ids: Int[np.ndarray, " words"], n: int) -> UInt64[np.ndarray, " windows"]:
    """A polynomial hash modulo 2**64 of each run of n words; empty when there are fewer than n."""
    windows = max(len(ids) - n + 1, 0)
    result = np.zeros(windows, np.uint64)
    # An odd multiplier per word and a mix per step: equal runs are equal, others collide once in about 2**64.
    for offset in range(n):
        result = (result ^ (result >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
        result += ids[offset : offset + windows].astype(np.uint64) + np.uint64(1)
    return result


def occurrence(values: UInt64[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """How often each value occurred before it: 0 for a first occurrence."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(values) else order
    rank = np.arange(len(values)) - np.repeat(first, np.diff(np.append(first, len(values))))
    result = np.empty(len(values), np.int64)
    result[order] = rank
    return result
