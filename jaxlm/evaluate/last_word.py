"""A text's last word from all before it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxlm.config.errors import UsageError
from jaxlm.config.tasks import LastWord
from jaxlm.evaluate.records import read
from jaxlm.evaluate.results import Asked, Result, Subject, digest, exponential, ratio, share, shortened
from jaxlm.evaluate.score import score
from jaxlm.evaluate.template import render
from jaxlm.evaluate.tokens import after


def ask(task: LastWord, root: Path) -> Asked:
    """The texts, cut before the last space. Raises UsageError as `records.read` does, and for one of one word."""
    cut = []
    for item in read(task.data, root):
        text = render(task.text, item).rstrip()
        context, space, word = text.rpartition(" ")
        if not context.strip():
            raise UsageError(f"{text[:40]!r} has no word before its last")
        cut.append((context, space + word))
    name = digest("last_word", task.text)
    return Asked(task, name, len(cut), lambda subject: measure(task, name, cut, subject))


def measure(task: LastWord, name: str, cut: list[tuple[str, str]], subject: Subject) -> Result:
    """Perplexity is that of whole words, as in LAMBADA: exp of their mean negative log-probability."""
    requests = []
    for context, word in cut:
        before, (ids,) = after(subject.tokenizer, context, [word])
        requests.append((before, ids))
    scored = score(subject, requests)
    nats = np.array([-one.total for one in scored])
    right = np.array([one.greedy.all() for one in scored])
    metrics = (
        share("accuracy", right),
        ratio("perplexity", nats, np.ones(len(nats)), exponential),
        ratio("loss", nats, np.ones(len(nats))),
    )
    items = [{"hash": digest(*pair), "nats": float(a), "right": bool(b)} for pair, a, b in zip(cut, nats, right)]
    return Result(task, name, metrics, items, notes=shortened([one.cut for one in scored]))
