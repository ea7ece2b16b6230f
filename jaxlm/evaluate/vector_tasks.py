"""Tasks that ask what the vectors of texts know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.vector_tasks import Clustering, Logistic, Neighbors, Probe, Retrieval, Similarity
from jaxlm.evaluate import intervals, retrieval
from jaxlm.evaluate.calibration import normalized
from jaxlm.evaluate.clustering import adjusted_rand, kmeans, normalized_mutual_information, purity
from jaxlm.evaluate.labeled import labeled, unseen
from jaxlm.evaluate.labels import bins, judged
from jaxlm.evaluate.probe import fit_probe, vote
from jaxlm.evaluate.records import read
from jaxlm.evaluate.results import Asked, Metric, Result, Subject, around, digest, mean
from jaxlm.evaluate.similarity import cosines, pearson, spearman
from jaxlm.evaluate.template import render
from jaxlm.evaluate.vectors import vectors_of

Texts = list[str]


def ask(task: Similarity | Clustering | Probe | Retrieval, root: Path) -> Asked:
    """The texts and what is known of them. Raises UsageError as `records.read` and `template.render` do."""
    match task:
        case Similarity():
            return _similarity(task, root)
        case Clustering():
            return _clustering(task, root)
        case Probe():
            return _probe(task, root)
        case Retrieval():
            return _retrieval(task, root)


# --- similarity ----------------------------------------------------------------------------------------------


def _similarity(task: Similarity, root: Path) -> Asked:
    items = read(task.data, root)
    one, other, groups = (_rendered(each, items) for each in (task.first, task.second, task.cluster))
    scores = np.array([_number(text) for text in _rendered(task.score, items)])
    name = digest("similarity", task.first, task.second, task.score)

    def run(subject: Subject) -> Result:
        found, notes = vectors_of([*one, *other], task.vectors, subject)
        values = cosines(*np.split(found.astype(np.float64), 2))
        clusters = np.array(groups) if task.cluster else None
        metrics = tuple(
            Metric(key, of(values, scores), *intervals.bootstrap(of, values, scores, groups=clusters), len(scores))
            for key, of in (("spearman", spearman), ("pearson", pearson))
        )
        told = [
            {"hash": digest(a, b), "cosine": float(value), "score": float(score)}
            for a, b, value, score in zip(one, other, values, scores)
        ]
        return Result(task, name, metrics, told, notes=notes)

    return Asked(task, name, len(items), run)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"score is {text!r}: expected a number") from None


# --- clustering ----------------------------------------------------------------------------------------------


def _clustering(task: Clustering, root: Path) -> Asked:
    items = read(task.data, root)
    texts, names = _rendered(task.text, items), _rendered(task.label, items)
    if task.merged:
        known = _merged(root / task.merged)
        kept = [(text, known[name]) for text, name in zip(texts, names) if name in known]
        if not kept:
            raise UsageError(f"merged: {task.merged} names none of the labels, such as {names[0]!r}")
        texts, names = map(list, zip(*kept))
    if task.clusters > len(texts):
        raise UsageError(f"clusters is {task.clusters}: there are {len(texts)} texts")
    classes = sorted(set(names))
    gold = np.array([classes.index(name) for name in names])
    name = digest("clustering", task.text, task.label, task.merged, classes)

    def run(subject: Subject) -> Result:
        found, notes = vectors_of(texts, task.vectors, subject)
        clusters = kmeans(found, task.clusters or len(classes), task.restarts, task.seed).labels
        metrics = tuple(
            around(key, of, gold, clusters)
            for key, of in (("nmi", normalized_mutual_information), ("ari", adjusted_rand), ("purity", purity))
        )
        told = [
            {"hash": digest(text), "label": label, "cluster": int(cluster)}
            for text, label, cluster in zip(texts, names, clusters)
        ]
        return Result(task, name, metrics, told, notes=notes)

    return Asked(task, name, len(texts), run)


def _merged(path: Path) -> dict[str, str]:
    """Label -> the one it counts as. Raises UsageError and Failure."""
    if not path.is_file():
        raise UsageError(f"merged: there is no {path}")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {str(one): name for name, several in tree.items() for one in several}
    except (ValueError, AttributeError, TypeError) as error:
        raise Failure(f'{path} is no JSON of {{"label": ["one", "another"]}}: {error}') from None


# --- probes --------------------------------------------------------------------------------------------------


def _probe(task: Probe, root: Path) -> Asked:
    train, judged_on = (labeled([task.text], task.label, one, root) for one in (task.train, task.data))
    train, left = unseen(train, judged_on, "train")
    classes = sorted(set(train.labels))
    if unknown := sorted(set(judged_on.labels) - set(classes)):
        raise UsageError(f"train has no text of the label {unknown[0]!r}: give more, or draw them by train.seed")
    if isinstance(task.reader, Neighbors) and task.reader.k > len(train.texts):
        raise UsageError(f"reader.k is {task.reader.k}: train has {len(train.texts)} texts")
    given, gold = (np.array([classes.index(one) for one in each.labels]) for each in (train, judged_on))
    learned, texts = ([text for (text,) in each.texts] for each in (train, judged_on))
    name = digest("probe", task.text, task.label, classes)

    def run(subject: Subject) -> Result:
        found, notes = vectors_of([*learned, *texts], task.vectors, subject)
        inputs, asked = np.split(found, [len(learned)])
        log_p, more = _read_off(task.reader, inputs, given, asked, len(classes))
        told = [
            {
                "hash": digest(text),
                "label": classes[label],
                "chosen": classes[row.argmax()],
                "nats": float(row[label]),
            }
            for text, label, row in zip(texts, gold, log_p)
        ]
        return Result(task, name, judged(log_p, gold), told, bins(log_p, gold), (*left, *notes, *more))

    return Asked(task, name, len(texts), run)


def _read_off(
    reader: Logistic | Neighbors,
    inputs: Float[np.ndarray, "training embed"],
    labels: Int[np.ndarray, " training"],
    asked: Float[np.ndarray, "item embed"],
    classes: int,
) -> tuple[Float[np.ndarray, "item classes"], tuple[str, ...]]:
    """Log-probabilities, and a note."""
    match reader:
        case Logistic(seed):
            found = fit_probe(inputs, labels, classes, seed)
            return normalized(found(asked)), (f"penalty {found.penalty:g}, {len(labels)} training texts",)
        case Neighbors(k):
            shares = vote(inputs, labels, asked, classes, k)
            # A class without a vote would make the loss infinite: one more vote is shared out among all.
            return np.log((shares * k + 1 / classes) / (k + 1)), (f"{len(labels)} training texts",)


# --- retrieval -----------------------------------------------------------------------------------------------


def _retrieval(task: Retrieval, root: Path) -> Asked:
    items = read(task.data, root)
    documents: dict[str, int] = {}
    own: dict[str, set[int]] = {}
    groups: dict[str, str] = {}
    for item in items:
        query, document = render(task.query, item), render(task.document, item)
        own.setdefault(query, set()).add(documents.setdefault(document, len(documents)))
        groups.setdefault(query, render(task.cluster, item))
    if len(documents) < 2:
        raise UsageError("all items have the same document: there is nothing to search")
    name = digest("retrieval", task.query, task.document, sorted(documents))

    def run(subject: Subject) -> Result:
        found, notes = vectors_of([*own, *documents], task.vectors, subject)
        ranks = retrieval.ranks(*np.split(found, [len(own)]), [sorted(each) for each in own.values()])
        values: dict[str, np.ndarray] = {f"recall@{k}": retrieval.recall(ranks, k) for k in task.depths}
        values |= {"mrr": retrieval.reciprocal_rank(ranks), "ndcg@10": retrieval.discounted_gain(ranks, 10)}
        clusters = np.array(list(groups.values())) if task.cluster else None
        metrics = tuple(mean(key, each, clusters) for key, each in values.items())
        told = [{"hash": digest(query), "ranks": each.tolist()} for query, each in zip(own, ranks)]
        return Result(task, name, metrics, told, notes=(*notes, f"searched {len(documents)} documents"))

    return Asked(task, name, len(own), run)


def _rendered(template: str, items: Sequence[dict]) -> Texts:
    return [render(template, item) for item in items]
