"""Models of others as runs, from which everything goes on: generating, training, exporting."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxlm.adapters.build import trained
from jaxlm.config import (
    PRECISIONS,
    Experiment,
    Gpt2Files,
    Learned,
    Mesh,
    SentencePieceFile,
    TokenizerJson,
    Train,
    WordPieceFile,
)
from jaxlm.config.codec import what_hash
from jaxlm.config.data import kept
from jaxlm.config.errors import Failure, UsageError
from jaxlm.interop import exchange, peft
from jaxlm.interop.gguf import File
from jaxlm.layers.names import partition
from jaxlm.parallel.layout import Layout
from jaxlm.parallel.mesh import make_mesh
from jaxlm.runs.directory import finish, is_finished, open_run, read_experiment, record
from jaxlm.runs.initial import pinned
from jaxlm.tokenizers import Tokenizer, gguf
from jaxlm.tokenizers.build import given, keep, reopen
from jaxlm.tokenizers.sentencepiece import SentencePieceTokenizer
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.models import find_base, whole_model
from jaxlm.train.state import State

FILES = {
    "tokenizer.json": TokenizerJson,
    "tokenizer.model": SentencePieceFile,
    "vocab.json": Gpt2Files,
    "vocab.txt": WordPieceFile,
}
"""Files of a tokenizer, the first that is there is taken."""
LENGTH = 2048
"""Positions of a model that does not say for how many it is meant."""


def bring(path: Path, run_dir: str | None = None) -> str:
    """A model of Hugging Face's or llama.cpp's files as a finished run of no steps; returns its directory.

    What can be wrong with settings, names, shapes and tokenizer is said before a weight is read. Raises UsageError
    for a tokenizer of more tokens than the embedding has, and a directory that holds something else; Failure for
    what is missing, damaged or not known.
    """
    source = exchange.opened(path)
    config, tokenizer = source.config, _tokenizer(source)
    if tokenizer.vocab > config.vocab:
        raise UsageError(f"{path}: the tokenizer has {tokenizer.vocab} tokens, the embedding {config.vocab} rows")
    length = source.settings.get("max_position_embeddings") or source.settings.get("n_positions") or LENGTH
    if isinstance(config.position, Learned):
        length = config.position.length  # some of the rows that settings count are no positions
    name = re.sub(r"[^a-z0-9]+", "-", (path.stem if path.is_file() else path.name).lower()).strip("-")
    experiment = Experiment(
        name=name or "model",
        model=config,
        # As `keep` writes it.
        tokenizer=(SentencePieceFile if isinstance(tokenizer, SentencePieceTokenizer) else TokenizerJson)(
            str(path)
        ),
        train=Train(steps=1, batch=1, length=length),
    )
    if is_finished(experiment, run_dir):
        return _unchanged(str(open_run(experiment, run_dir).path), path)
    layout = Layout(make_mesh(Mesh(), jax.local_devices()[:1]))
    _, model = exchange.load(source, layout)
    run = open_run(experiment, run_dir)
    keep(tokenizer, Path(run.path) / "tokenizer")
    trained, frozen = partition(model, lambda name, leaf: True)
    with Checkpoints(f"{run.path}/checkpoints", config=what_hash(experiment)) as checkpoints:
        checkpoints.save(0, State(jnp.zeros((), jnp.int32), trained, {"model": frozen}, ()), {})
    record(run, imported=str(path.resolve()), files=_files(path))
    finish(run)
    return str(run.path)


def bring_adapter(path: Path, base: str, run_dir: str | None = None) -> str:
    """An adapter of PEFT's files over a run, as a finished run of no steps; returns its directory.

    Raises UsageError for a directory that holds something else, Failure as `peft.read`.
    """
    theirs = read_experiment(base)
    layout, precision = Layout(make_mesh(Mesh(), jax.local_devices()[:1])), PRECISIONS[theirs.precision]
    kind, model = peft.read(path, theirs.model, whole_model(base, find_base(base, theirs), layout, precision))
    experiment = pinned(
        Experiment(
            name=re.sub(r"[^a-z0-9]+", "-", path.name.lower()).strip("-") or "adapter",
            model=theirs.model,
            tokenizer=kept(theirs.tokenizer, Path(base) / "tokenizer"),
            adapter=kind,
            quantization=theirs.quantization,
            train=dataclasses.replace(theirs.train, steps=1, batch=1),
            precision=theirs.precision,
            initial=base,
        )
    )
    if is_finished(experiment, run_dir):
        return _unchanged(str(open_run(experiment, run_dir).path), path)
    run = open_run(experiment, run_dir)
    keep(reopen(theirs.tokenizer, Path(base) / "tokenizer"), Path(run.path) / "tokenizer")
    own, _ = partition(model, trained(kind))
    with Checkpoints(f"{run.path}/checkpoints", config=what_hash(experiment)) as checkpoints:
        checkpoints.save(0, State(jnp.zeros((), jnp.int32), own, {}, ()), {})
    record(run, imported=str(path.resolve()), files=_files(path))
    finish(run)
    return str(run.path)


def _files(path: Path) -> dict[str, list[int]]:
    """Size and time of change of each file, in bytes and nanoseconds: enough to see that a model was replaced."""
    found = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
    return {one.name: [one.stat().st_size, one.stat().st_mtime_ns] for one in found}


def _unchanged(run: str, path: Path) -> str:
    """The run, if the model is still the one that was imported. Raises Failure."""
    manifest = json.loads((Path(run) / "manifest.json").read_text())
    if manifest.get("files") not in (None, _files(path)):
        raise Failure(
            f"{path} has changed since it became {run}: import it under another name, jaxlm import {path} RUN"
        )
    return run


def _tokenizer(source: exchange.Source) -> Tokenizer:
    if isinstance(source.tensors, File):
        return gguf.tokenizer(source.tensors.fields, source.path)
    for name, kind in FILES.items():
        if (source.path / name).is_file():
            return given(kind(str(source.path / name)))
    raise UsageError(f"{source.path} has no tokenizer: expected one of {', '.join(FILES)}")
