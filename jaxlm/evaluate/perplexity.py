"""Loss, perplexities and bits per byte of texts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from jaxlm.config.errors import UsageError
from jaxlm.config.tasks import Perplexity
from jaxlm.evaluate.records import read
from jaxlm.evaluate.results import Asked, Result, Subject, digest, exponential, ratio
from jaxlm.evaluate.score import score
from jaxlm.evaluate.template import render
from jaxlm.evaluate.tokens import windows


def ask(task: Perplexity, root: Path) -> Asked:
    """The texts. Raises UsageError as `records.read` and `template.render` do, and for an empty text."""
    texts = [render(task.text, item) for item in read(task.data, root)]
    if empty := [number for number, text in enumerate(texts) if not text.strip()]:
        raise UsageError(f"text {empty[0]} of {task.data.path} is empty")
    name = digest("perplexity", task.text)
    return Asked(task, name, len(texts), lambda subject: measure(task, name, texts, subject))


def measure(task: Perplexity, name: str, texts: list[str], subject: Subject) -> Result:
    """Each token once. Intervals draw texts, or of one text its windows.

    Raises UsageError for a window longer than the model reads.
    """
    if task.window > subject.length:
        raise UsageError(f"window is {task.window}: the model reads {subject.length} tokens")
    requests, owner = [], []
    for number, tokens in enumerate(subject.tokenizer.encode_batch(texts)):
        cut = list(windows(tokens, subject.tokenizer.bos, task.window or subject.length))
        requests += cut
        owner += [number] * len(cut)
    scored = score(subject, requests)
    nats = np.array([-one.total for one in scored])
    tokens = np.array([len(one.nats) for one in scored])
    per_text = np.bincount(owner, nats, len(texts))
    counts = np.bincount(owner, tokens, len(texts)).astype(int)
    words = np.array([len(text.split()) for text in texts])
    sizes = np.array([len(text.encode()) for text in texts])
    several = len(texts) > 1
    top, bottom = (per_text, counts) if several else (nats, tokens)
    # Of one text windows are drawn; their share of its words and bytes is that of their tokens.
    words_of, sizes_of = (each if several else each[0] * tokens / tokens.sum() for each in (words, sizes))
    metrics = (
        ratio("loss", top, bottom),
        ratio("token_perplexity", top, bottom, exponential),
        ratio("word_perplexity", top, words_of, exponential),
        ratio("byte_perplexity", top, sizes_of, exponential),
        ratio("bits_per_byte", top, sizes_of, lambda nats: nats / math.log(2)),
    )
    items = [
        {"hash": digest(text), "nats": float(a), "tokens": int(b), "words": int(c), "bytes": int(d)}
        for text, a, b, c, d in zip(texts, per_text, counts, words, sizes)
    ]
    notes = () if several else (f"one text, intervals draw its {len(nats)} windows",)
    return Result(task, name, metrics, items, notes=notes)
