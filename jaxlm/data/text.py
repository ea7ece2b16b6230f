"""Raw text to clean text on disk: the two splits of a tfds dataset, under the hash of what made them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from jaxlm.config import data as config
from jaxlm.config.errors import Failure, UsageError
from jaxlm.corpus import (
    Document,
    clean,
    conversations,
    decontaminate,
    deduplicate,
    documents,
    hold_out,
    labeled,
    others,
    plain,
    spoken,
)
from jaxlm.corpus import fingerprint as source_fingerprint
from jaxlm.data import builder, dataset

RECIPE = 1
"""Counts up when the same raw text would be cleaned or split differently."""
PHRASE = 10
"""Training conversations that may share a run of words before it is a phrase, which contaminates nothing."""


@dataclass(frozen=True)
class Text:
    """Clean text on disk."""

    dataset: str
    """What `builder.open_dataset` takes."""
    train: str
    held_out: str
    field: str
    fingerprint: str
    documents: dict[str, int]


def prepare_text(data: config.Data, directory: Path, report: Callable[[str], None]) -> Text:
    """Clean text, made in `directory` or found there. Raises UsageError and Failure as its parts do."""
    match data:
        case config.Corpus() | config.Conversations() | config.Labeled():
            return _corpus(data, directory, report)
        case config.Tfds():
            return _tfds(data)
        case config.Pairs(of=of):
            return prepare_text(of, directory, report)
    raise UsageError(f"data: nothing prepares {type(data).__name__}")


Source = config.Corpus | config.Conversations | config.Labeled


def _corpus(data: Source, directory: Path, report: Callable[[str], None]) -> Text:
    match data:
        case config.Corpus():
            name = key(RECIPE, source_fingerprint(data.source), data.filters, data.held_out)
        case config.Conversations():
            found = list(conversations(data))
            name = key(RECIPE, "conversations", _digest(found), data.held_out)
        case config.Labeled():
            both = map(_digest, labeled(data))
            name = key(RECIPE, "labeled", *both, data.held_out)
    place = dataset.once(directory / f"corpus-{name}", lambda scratch: _clean(data, scratch, report))
    record = read(place / "report.json")
    return Text(
        str(place / record["dataset"]), "train", "held_out", "text", record["fingerprint"], record["documents"]
    )


def _clean(data: Source, scratch: Path, report: Callable[[str], None]) -> None:
    """Raw documents to the two splits of a tfds dataset, and a record of what became of every document."""
    report("data: reading and cleaning the raw text")
    given: list[Document] | None = None
    match data:
        case config.Corpus():
            kept, fates = clean(documents(data.source), data.filters)
        case config.Conversations():
            kept, fates = list(conversations(data)), Counter()
        case config.Labeled():
            (kept, found), fates = labeled(data), Counter()
            given = found if data.held_out_paths else None
    kept, fates["duplicate"] = deduplicate(kept)
    if not kept:
        raise Failure(f"no document is left after cleaning: {listed(fates) or 'the source is empty'}")
    train, held_out = (kept, given) if given is not None else hold_out(kept, data.held_out)
    train, fates["contaminated"] = _without(train, held_out, data)
    if not train:
        raise Failure(f"no training document is left after cleaning: {listed(fates)}")
    counts = {"train": len(train), "held_out": len(held_out)} | {k: v for k, v in sorted(fates.items()) if v}
    report(f"data: documents: {listed(counts)}")
    path = builder.write({"train": train, "held_out": held_out}, scratch)
    record = {
        "dataset": path.relative_to(scratch).as_posix(),
        "documents": counts,
        "fingerprint": key(_digest([*train, *held_out]), len(train)),
    }
    (scratch / "report.json").write_text(json.dumps(record, indent=2) + "\n")


def _without(train: list[Document], held_out: list[Document], data: Source) -> tuple[list[Document], int]:
    """Training documents without contamination; of conversations by what is said in them, phrases aside."""
    if isinstance(data, config.Corpus):
        return decontaminate(train, held_out)
    if isinstance(data, config.Labeled):
        # Questions on one passage share it: no run of words is a phrase.
        said, new, common = plain, others(train, held_out), None
    else:
        said, new, common = spoken, train, PHRASE
    kept, _ = decontaminate([*map(said, new)], [*map(said, held_out)], common=common)
    names = {document.name for document in kept}
    new = [document for document in new if document.name in names]
    return new, len(train) - len(new)


def _digest(found: Sequence[Document]) -> str:
    """sha256 of names and texts."""
    digest = sha256()
    for document in found:
        digest.update(sha256(document.name.encode()).digest() + sha256(document.text.encode()).digest())
    return digest.hexdigest()


def _tfds(data: config.Tfds) -> Text:
    found = builder.open_dataset(data.name)
    name = key(builder.fingerprint(found), data.split, data.held_out, data.field)
    return Text(data.name, data.split, data.held_out, data.field, name, {})


# --- small parts -------------------------------------------------------------------------------------------


def key(*parts: object) -> str:
    """A short name for values with a faithful repr: dataclasses of numbers, strings and tuples."""
    return sha256(repr(parts).encode()).hexdigest()[:16]


def read(path: Path) -> dict:
    """The JSON object of a file that this package wrote. Raises Failure for one that is damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Failure(f"{str(path)!r} is damaged ({error}): remove its directory") from error


def listed(counts: Counter[str] | dict[str, int]) -> str:
    """Counts above 0, by name."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
