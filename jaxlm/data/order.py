"""The order of documents: a pure function of (seed, epoch), the same on every machine and numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt64

VERSION = 1
"""Counts up when the permutation of a (seed, epoch) changes; part of every stream's fingerprint."""

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """One step of SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195): a bijection of 64 bits."""
    x = x + GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permutation(count: int, seed: int, epoch: int) -> Int64[np.ndarray, " count"]:
    """Document indices 0 .. count - 1 in the order in which an epoch visits them.

    Documents are sorted by a hash of (seed, epoch, index). The hash is a bijection of the index, so there are
    no ties and any sorting algorithm gives the same order.
    """
    key = mix(mix(np.array([seed % 2**64], np.uint64)) ^ np.array([epoch], np.uint64))
    return np.argsort(mix(np.arange(count, dtype=np.uint64) ^ key), kind="stable")


@dataclass(frozen=True)
class Epoch:
    """Where the documents of one epoch lie in it."""

    order: Int64[np.ndarray, " documents"]
    """Which document comes at each place."""
    ends: Int64[np.ndarray, " documents"]
    """The epoch's tokens up to and with the document at each place; the last is the epoch's length L."""


def arrange(lengths: Int64[np.ndarray, " documents"], seed: int | None, epoch: int) -> Epoch:
    """The layout of an epoch of documents with these token counts; seed None keeps their own order."""
    count = len(lengths)
    order = np.arange(count) if seed is None else permutation(count, seed, epoch)
    return Epoch(order, np.cumsum(lengths[order]))
