"""What a language model has to beat: bits per byte of the held-out text by methods that know no language."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Iterable

import numpy as np


def baselines(texts: Iterable[str]) -> dict[str, float]:
    """Bits per byte of the texts' concatenated UTF-8, by method.

    `unigram` is the order-0 entropy of the bytes under their own frequencies; `gzip` and `xz` are the sizes
    of `gzip -9` and `xz -9` files, headers included. Raises ValueError if there is not a byte.
    """
    stream = "".join(texts).encode()
    if not stream:
        raise ValueError("bits per byte of an empty text are not defined")
    shares = np.bincount(np.frombuffer(stream, np.uint8), minlength=256) / len(stream)
    shares = shares[shares > 0]
    return {
        "unigram": float(-(shares * np.log2(shares)).sum()),
        "gzip": 8 * len(gzip.compress(stream, compresslevel=9, mtime=0)) / len(stream),
        "xz": 8 * len(lzma.compress(stream, preset=9)) / len(stream),
    }
