"""A run as other libraries read it."""

from __future__ import annotations

from pathlib import Path

from jaxlm.families.known import published
from jaxlm.interop import exchange, safetensors
from jaxlm.runs.directory import read_experiment
from jaxlm.tokenizers.sentencepiece import SentencePieceTokenizer
from jaxlm.train.load import load_run


def export(run: str, directory: Path) -> str:
    """Writes the newest checkpoint of a run and its tokenizer's file; returns what was written, in a line.

    Raises UsageError for a model that no known family has and for a directory that is there already, both before a
    weight is read; Failure for a run without a checkpoint or a damaged one.
    """
    experiment = read_experiment(run)
    published(experiment.model, experiment.train.length)
    safetensors.refuse_existing(directory)
    model, tokenizer, _ = load_run(run)
    own = isinstance(tokenizer, SentencePieceTokenizer)
    kind = exchange.save(
        experiment.model,
        model,
        directory,
        length=experiment.train.length,
        tokens={"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad},
        files={"tokenizer.model": tokenizer.model} if own else {},
    )
    text = "tokenizer.model" if own else f"no file of the tokenizer ({type(tokenizer).__name__} has none)"
    return f"{directory}: config.json ({kind}), safetensors, {text}"
