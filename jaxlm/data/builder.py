"""Text documents as tensorflow-datasets in ArrayRecord files, written and read without TensorFlow."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jaxlm.config.errors import Failure, UsageError
from jaxlm.corpus import Document

BATCH = 256
"""Records of a read: one at a time is thirty times slower."""


@cache
def _builder_class():
    import tensorflow_datasets as tfds

    # Only `write` can make one: a name in `open_dataset` must not find it.
    with tfds.core.registered.skip_registration():

        class Corpus(tfds.core.GeneratorBasedBuilder):
            """Cleaned documents, each split in its own order."""

            VERSION = tfds.core.Version("1.0.0")
            # No checksums lie beside this module; to look for them tfds needs a package it does
            # not declare, importlib_resources.
            code_path = None

            def __init__(self, *, splits: Mapping[str, Iterable[Document]], **options):
                self._documents = splits
                super().__init__(**options)

            def _info(self):
                features = {"name": tfds.features.Text(), "text": tfds.features.Text()}
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    disable_shuffling=True,
                )

            def _split_generators(self, manager):
                return {name: self._generate_examples(part) for name, part in self._documents.items()}

            def _generate_examples(self, documents):
                for index, document in enumerate(documents):
                    yield index, {"name": document.name, "text": document.text}

    return Corpus


def write(splits: Mapping[str, Iterable[Document]], directory: Path) -> Path:
    """Writes documents below `directory` and returns the dataset's own directory, which `open_dataset` takes.

    Records are compressed one by one (group size 1), so any is read alone. tfds writes under another name and
    renames; a dataset that is already there is left as it is.
    """
    import tensorflow_datasets as tfds

    builder = _builder_class()(splits=splits, data_dir=directory, file_format="array_record")
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=config)
    return Path(builder.data_dir)


def open_dataset(name: str) -> Any:
    """The prepared tfds builder of a directory, or of `name[/config][:version]` in the tfds data directory.

    Raises UsageError if there is none; nothing is ever downloaded.
    """
    import tensorflow_datasets as tfds

    if not name:
        raise UsageError("data.name is empty: give a tfds dataset's name or directory")
    try:
        builder = tfds.builder_from_directory(name) if Path(name).is_dir() else tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, FileNotFoundError, ValueError) as error:
        raise UsageError(
            f"data.name: no tfds dataset {name!r} ({error}); prepare it first, or set TFDS_DATA_DIR"
        ) from error
    if not builder.is_prepared():
        raise UsageError(f"data.name: {name!r} is not prepared: there is nothing in {str(builder.data_dir)!r}")
    return builder


def fingerprint(builder: Any) -> str:
    """sha256 of a dataset's name, features, and each split's shards and their sizes (not of every byte)."""
    splits = {name: (split.shard_lengths, split.num_bytes) for name, split in sorted(builder.info.splits.items())}
    parts = (builder.info.full_name, builder.info.features.to_json(), splits)
    return sha256(json.dumps(parts).encode()).hexdigest()


def texts(builder: Any, split: str, field: str = "text", *, every: int = 1) -> Iterator[str]:
    """The field `field` of every n-th record of a split, in order.

    Raises UsageError for a split or field that the dataset lacks, Failure for files that cannot be read.
    """
    import tensorflow_datasets as tfds

    if split not in builder.info.splits:
        known = ", ".join(sorted(builder.info.splits))
        raise UsageError(f"data: {builder.info.full_name} has no split {split!r}; it has {known}")
    features = dict(builder.info.features.items())
    if not isinstance(features.get(field), tfds.features.Text):
        known = ", ".join(sorted(name for name in features if isinstance(features[name], tfds.features.Text)))
        raise UsageError(f"data.field: {builder.info.full_name} has no text feature {field!r}; it has {known}")
    try:
        source = builder.as_data_source(split)
    except (NotImplementedError, ValueError) as error:
        message = f"{builder.info.full_name} cannot be read at random: prepare it as array_record ({error})"
        raise Failure(message) from error
    wanted = range(0, len(source), every)
    for start in range(0, len(wanted), BATCH):
        for record in source.__getitems__(list(wanted[start : start + BATCH])):
            yield record[field].decode()


def sample(builder: Any, split: str, field: str, limit: int) -> list[str]:
    """Texts evenly spread over a split, about `limit` bytes in all."""
    every = max(1, -(-builder.info.splits[split].num_bytes // limit)) if split in builder.info.splits else 1
    return list(texts(builder, split, field, every=every))
