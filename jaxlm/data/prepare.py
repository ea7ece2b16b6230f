"""From a config to datasets: clean text, tokenizer, tokens, each kept under the hash of what made it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from jaxlm.config import data as config
from jaxlm.config.errors import Failure, UsageError
from jaxlm.corpus import (
    Document,
    baselines,
    clean,
    conversations,
    decontaminate,
    deduplicate,
    documents,
    hold_out,
    spoken,
)
from jaxlm.corpus import fingerprint as source_fingerprint
from jaxlm.data import answers, builder, dataset
from jaxlm.data.dataset import Dataset
from jaxlm.tokenizers import Tokenizer, build, given

RECIPE = 1
"""Counts up when the same raw text would be cleaned or split differently."""
PHRASE = 10
"""Training conversations that may share a run of words before it is a phrase, which contaminates nothing."""
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


@dataclass(frozen=True)
class _Text:
    """Clean text on disk."""

    dataset: str
    """What `builder.open_dataset` takes."""
    train: str
    held_out: str
    field: str
    fingerprint: str
    documents: dict[str, int]


def prepare(
    data: config.Data,
    tokenizer: config.Tokenizer,
    directory: str | Path,
    report: Callable[[str], None] = lambda line: None,
    rows: int | None = None,
    length: int | None = None,
) -> Prepared:
    """Tokenized training and held-out documents, made in `directory` or found there.

    Conversations of more than `length` tokens, those of a row, are left out and counted.

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
    with _timed("text", seconds):
        match data:
            case config.Corpus() | config.Conversations():
                text = _corpus(data, directory, report)
            case config.Tfds():
                text = _tfds(data)
            case _:
                raise UsageError(f"data: nothing prepares {type(data).__name__}")
    with _timed("tokenizer", seconds):
        place = directory / f"tokenizer-{_key(text.fingerprint, tokenizer)}"
        made = found or build(tokenizer, lambda: _training_text(text, tokenizer, report), place)
        _fits(made, rows)
    with _timed("tokens", seconds):
        shape = () if form is None else (form, answers.VERSION, length)
        place = directory / f"tokens-{_key(dataset.FORMAT, text.fingerprint, made.fingerprint, *shape)}"
        dataset.once(place, lambda scratch: _tokenize(text, made, form, length, scratch, report))
        train, held_out = dataset.load(place / "train"), dataset.load(place / "held_out")
        bits, fates = _read(place / "baselines.json"), text.documents
    if form is not None and (fates := _shorter(text.documents, train, held_out)) != text.documents:
        report(f"data: of more tokens than a row's {length}, and left out: {fates['longer than a row']:,}")
    report(_summary(train, held_out, bits))
    return Prepared(train, held_out, made, fates, bits, seconds)


# --- clean text --------------------------------------------------------------------------------------------


def _corpus(data: config.Corpus | config.Conversations, directory: Path, report: Callable[[str], None]) -> _Text:
    match data:
        case config.Corpus():
            key = _key(RECIPE, source_fingerprint(data.source), data.filters, data.held_out)
        case config.Conversations():
            found = list(conversations(data))
            key = _key(RECIPE, "conversations", _digest(found), data.held_out)
    place = dataset.once(directory / f"corpus-{key}", lambda scratch: _clean(data, scratch, report))
    record = _read(place / "report.json")
    name = str(place / record["dataset"])
    return _Text(name, "train", "held_out", "text", record["fingerprint"], record["documents"])


def _clean(data: config.Corpus | config.Conversations, scratch: Path, report: Callable[[str], None]) -> None:
    """Raw documents to the two splits of a tfds dataset, and a record of what became of every document."""
    report("data: reading and cleaning the raw text")
    match data:
        case config.Corpus():
            kept, fates = clean(documents(data.source), data.filters)
        case config.Conversations():
            kept, fates = list(conversations(data)), Counter()
    kept, fates["duplicate"] = deduplicate(kept)
    if not kept:
        raise Failure(f"no document is left after cleaning: {_listed(fates) or 'the source is empty'}")
    train, held_out = hold_out(kept, data.held_out)
    train, fates["contaminated"] = _without(train, held_out, data)
    if not train:
        raise Failure(f"no training document is left after cleaning: {_listed(fates)}")
    counts = {"train": len(train), "held_out": len(held_out)} | {k: v for k, v in sorted(fates.items()) if v}
    report(f"data: documents: {_listed(counts)}")
    path = builder.write({"train": train, "held_out": held_out}, scratch)
    record = {
        "dataset": path.relative_to(scratch).as_posix(),
        "documents": counts,
        "fingerprint": _key(_digest([*train, *held_out]), len(train)),
    }
    (scratch / "report.json").write_text(json.dumps(record, indent=2) + "\n")


def _without(
    train: list[Document], held_out: list[Document], data: config.Corpus | config.Conversations
) -> tuple[list[Document], int]:
    """Training documents without contamination; conversations by what is said in them, phrases aside."""
    if isinstance(data, config.Corpus):
        return decontaminate(train, held_out)
    kept, dropped = decontaminate([*map(spoken, train)], [*map(spoken, held_out)], common=PHRASE)
    names = {document.name for document in kept}
    return [document for document in train if document.name in names], dropped


def _digest(found: Sequence[Document]) -> str:
    """sha256 of names and texts."""
    digest = sha256()
    for document in found:
        digest.update(sha256(document.name.encode()).digest() + sha256(document.text.encode()).digest())
    return digest.hexdigest()


def _tfds(data: config.Tfds) -> _Text:
    found = builder.open_dataset(data.name)
    key = _key(builder.fingerprint(found), data.split, data.held_out, data.field)
    return _Text(data.name, data.split, data.held_out, data.field, key, {})


# --- tokens ------------------------------------------------------------------------------------------------


def _training_text(text: _Text, tokenizer: config.Tokenizer, report: Callable[[str], None]) -> list[str]:
    report(f"data: training the tokenizer {tokenizer}")
    return builder.sample(builder.open_dataset(text.dataset), text.train, text.field, SAMPLE)


def _tokenize(
    text: _Text,
    tokenizer: Tokenizer,
    form: answers.Form | None,
    length: int | None,
    scratch: Path,
    report: Callable[[str], None],
) -> None:
    report("data: tokenizing")
    found = builder.open_dataset(text.dataset)
    for name, split in (("train", text.train), ("held_out", text.held_out)):
        texts = builder.texts(found, split, text.field)
        if form is None:
            dataset.write(dataset.texts(texts, tokenizer), tokenizer, scratch / name)
        else:
            dataset.write(answers.tokenized(texts, tokenizer, form, length), tokenizer, scratch / name)
    held_out = builder.texts(found, text.held_out, text.field)
    bits = baselines(held_out if form is None else answers.said(held_out))
    (scratch / "baselines.json").write_text(json.dumps(bits, indent=2) + "\n")


def _shorter(fates: dict[str, int], train: Dataset, held_out: Dataset) -> dict[str, int]:
    """Conversations by fate, those counted that were left out as too long. Raises Failure where none are left."""
    left = {"train": train.documents, "held_out": held_out.documents}
    longer = sum(fates[name] - left[name] for name in left)
    if not all(left.values()):
        raise Failure(f"{_listed(fates)}: of these {longer:,} are longer than a row: set train.length higher")
    return fates | left | ({"longer than a row": longer} if longer else {})


def _fits(tokenizer: Tokenizer, rows: int | None) -> None:
    if rows is not None and tokenizer.vocab > rows:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab} tokens, model.vocab={rows} rows: set model.vocab to "
            f"{tokenizer.vocab} or more"
        )


# --- small parts -------------------------------------------------------------------------------------------


def _key(*parts: object) -> str:
    """A short name for values with a faithful repr: dataclasses of numbers, strings and tuples."""
    return sha256(repr(parts).encode()).hexdigest()[:16]


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Failure(f"{str(path)!r} is damaged ({error}): remove its directory") from error


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


def _listed(counts: Counter[str] | dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


@contextmanager
def _timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
