"""The likelier of two texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxlm.config.tasks import MinimalPairs
from jaxlm.evaluate.records import read
from jaxlm.evaluate.results import Asked, Result, Subject, digest, share
from jaxlm.evaluate.score import score
from jaxlm.evaluate.template import render
from jaxlm.evaluate.tokens import after


def ask(task: MinimalPairs, root: Path) -> Asked:
    """The pairs. Raises UsageError as `records.read` and `template.render` do."""
    items = read(task.data, root)
    pairs = [(render(task.good, item), render(task.bad, item)) for item in items]
    groups = [render(task.group, item) for item in items]
    name = digest("pairs", task.good, task.bad)
    return Asked(task, name, len(pairs), lambda subject: measure(task, name, pairs, groups, subject))


def measure(
    task: MinimalPairs, name: str, pairs: list[tuple[str, str]], groups: list[str], subject: Subject
) -> Result:
    """Both texts of each pair whole, after BOS; equal log-probabilities are wrong."""
    requests = []
    for pair in pairs:
        for text in pair:
            context, (ids,) = after(subject.tokenizer, "", [text])
            requests.append((context, ids))
    nats = np.array([one.total for one in score(subject, requests)]).reshape(-1, 2)
    right = nats[:, 0] > nats[:, 1]
    items = [
        {"hash": digest(*pair), "nats": two.tolist(), "right": bool(one)}
        for pair, two, one in zip(pairs, nats, right)
    ]
    return Result(task, name, (share("accuracy", right),), items, by_group({"accuracy": right}, groups))


def by_group(metrics: dict[str, np.ndarray], groups: list[str]) -> dict[str, dict[str, float]]:
    """The means of each group's items; nothing of one group."""
    names = sorted(set(groups))
    of = np.array(groups)
    found = {name: {key: float(each[of == name].mean()) for key, each in metrics.items()} for name in names}
    return found if len(names) > 1 else {}
