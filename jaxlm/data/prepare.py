"""From a config to datasets: clean text, tokenizer, tokens, each kept under the hash of what made it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from jaxlm.config import data as config
from jaxlm.config.errors import Failure, UsageError
from jaxlm.corpus import baselines
from jaxlm.data import answers, builder, dataset
from jaxlm.data.answers import Answers
from jaxlm.data.dataset import Dataset
from jaxlm.data.labels import Texts
from jaxlm.data.pairs import Paired
from jaxlm.data.text import Text, key, listed, prepare_text, read
from jaxlm.tokenizers import Tokenizer, build, given

LABELED = 1
"""Counts up when the same labeled texts, or pairs, would become other tokens."""
SAMPLE = 128_000_000
"""Bytes of training text that a tokenizer is given to choose from."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that a run needs to know of its data."""

    train: Dataset
    held_out: Dataset
    tokenizer: Tokenizer
    documents: dict[str, int]
    """Documents by fate: `train`, `held_out`, and the reasons of those dropped. Empty for a tfds dataset."""
    baselines: dict[str, float]
    """Bits per byte of the held-out text by method."""
    seconds: dict[str, float]
    """By stage; a stage found in the cache takes next to none."""


def prepare(
    data: config.Data,
    tokenizer: config.Tokenizer,
    directory: str | Path,
    report: Callable[[str], None] = lambda line: None,
    rows: int | None = None,
    length: int | None = None,
) -> Prepared:
    """Tokenized training and held-out documents, made in `directory` or found there.

    Conversations of more than `length` tokens, those of a row, are left out and counted; labeled texts are cut.

    Every product lies under the hash of its inputs and is written atomically: a second call reads it, a
    killed one leaves nothing half made. `report` gets lines of progress. Raises UsageError and Failure as its
    parts do, and UsageError for a tokenizer of more tokens than `rows` of the embedding; what is wrong with a
    tokenizer's file is said before any text is read.
    """
    directory = Path(directory)
    seconds: dict[str, float] = {}
    if (found := given(tokenizer)) is not None:
        _fits(found, rows)
    form = answers.form(data, found)
    if form is not None and form.template:  # whoever talks to the model later has to write as it was trained
        found = replace(found, template=form.template)
    way, shape = _way(data, form, length)
    with _timed("text", seconds):
        text = prepare_text(data, directory, report)
    with _timed("tokenizer", seconds):
        place = directory / f"tokenizer-{key(text.fingerprint, tokenizer)}"
        made = found or build(tokenizer, lambda: _training_text(data, text, tokenizer, report), place)
        _fits(made, rows)
    with _timed("tokens", seconds):
        place = directory / f"tokens-{key(dataset.FORMAT, text.fingerprint, made.fingerprint, *shape)}"
        dataset.once(place, lambda scratch: _tokenize(text, made, way, scratch, report))
        train, held_out = dataset.load(place / "train"), dataset.load(place / "held_out")
        bits, fates = read(place / "baselines.json"), text.documents
    if form is not None and (fates := _shorter(text.documents, train, held_out)) != text.documents:
        report(f"data: of more tokens than a row's {length}, and left out: {fates['longer than a row']:,}")
    report(_summary(train, held_out, bits))
    return Prepared(train, held_out, made, fates, bits, seconds)


class _Way(Protocol):
    """How the documents of a kind of data become tokens."""

    def tokenized(
        self, documents: Iterable[str], tokenizer: Tokenizer, report: Callable[[str], None]
    ) -> Iterator[dataset.Tokenized]:
        """Documents as they are written; `report` gets lines for whoever waits."""
        ...

    def said(self, documents: Iterable[str]) -> Iterator[str]:
        """The text that is predicted."""
        ...


def _way(data: config.Data, form: answers.Form | None, length: int | None) -> tuple[_Way, tuple]:
    """And what tells its tokens from those of another."""
    match data:
        case config.Conversations():
            return Answers(form, length), (form, answers.VERSION, length)
        case config.Labeled():
            return Texts(length), ("labeled", LABELED, length)
        case config.Pairs():
            kind = (data.wrong, data.short, data.copies)
            return Paired(data, length), ("pairs", LABELED, length, *kind)
    return dataset.Plain(), ()


# --- tokens ------------------------------------------------------------------------------------------------


def _training_text(
    data: config.Data, text: Text, tokenizer: config.Tokenizer, report: Callable[[str], None]
) -> list[str]:
    report(f"data: training the tokenizer {tokenizer}")
    found = builder.sample(builder.open_dataset(text.dataset), text.train, text.field, SAMPLE)
    return list(Texts(None).said(found)) if isinstance(data, config.Labeled) else found


def _tokenize(text: Text, tokenizer: Tokenizer, way: _Way, scratch: Path, report: Callable[[str], None]) -> None:
    report("data: tokenizing")
    found = builder.open_dataset(text.dataset)
    for name, split in (("train", text.train), ("held_out", text.held_out)):
        texts = builder.texts(found, split, text.field)
        dataset.write(way.tokenized(texts, tokenizer, report), tokenizer, scratch / name)
    bits = baselines(way.said(builder.texts(found, text.held_out, text.field)))
    (scratch / "baselines.json").write_text(json.dumps(bits, indent=2) + "\n")


def _shorter(fates: dict[str, int], train: Dataset, held_out: Dataset) -> dict[str, int]:
    """Conversations by fate, those counted that were left out as too long. Raises Failure where none are left."""
    left = {"train": train.documents, "held_out": held_out.documents}
    longer = sum(fates[name] - left[name] for name in left)
    if not all(left.values()):
        raise Failure(f"{listed(fates)}: of these {longer:,} are longer than a row: set train.length higher")
    return fates | left | ({"longer than a row": longer} if longer else {})


def _fits(tokenizer: Tokenizer, rows: int | None) -> None:
    if rows is not None and tokenizer.vocab > rows:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab} tokens, model.vocab={rows} rows: set model.vocab to "
            f"{tokenizer.vocab} or more"
        )


# --- small parts -------------------------------------------------------------------------------------------


def _summary(train: Dataset, held_out: Dataset, bits: dict[str, float]) -> str:
    tokens = int(train.offsets[-1])
    predicted = tokens if train.predicted is None else int(train.predicted.sum())
    answers = "" if train.predicted is None else f", {predicted / 1e6:.2f} M of them in answers,"
    return (
        f"data: {train.documents:,} documents, {train.bytes / 1e6:.1f} MB, {tokens / 1e6:.2f} M tokens{answers} of "
        f"{train.bytes / max(predicted, 1):.2f} bytes; held out {held_out.documents:,} of "
        f"{held_out.bytes / 1e6:.2f} MB, in bits per byte "
        + ", ".join(f"{name} {value:.3f}" for name, value in bits.items())
    )


@contextmanager
def _timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
