"""A run as other libraries read it."""

from __future__ import annotations

from pathlib import Path

from jaxlm.config.model import EncoderDecoder
from jaxlm.families.known import published
from jaxlm.interop import exchange, safetensors
from jaxlm.runs.directory import read_experiment
from jaxlm.tokenizers.publish import exported
from jaxlm.train.load import load_run


def export(run: str, directory: Path) -> str:
    """Writes the newest checkpoint of a run and its tokenizer's files; returns what was written, in a line.

    Raises UsageError for a model that no known family has and for a directory that is there already, both before a
    weight is read; Failure for a run without a checkpoint or a damaged one.
    """
    experiment = read_experiment(run)
    _, settings = published(experiment.model, experiment.train.length)
    safetensors.refuse_existing(directory)
    model, tokenizer, _ = load_run(run)
    files, remark = exported(tokenizer, settings["model_type"])
    tokens = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad}
    if isinstance(experiment.model, EncoderDecoder) and experiment.model.start is None:
        tokens["decoder_start_token_id"] = tokenizer.bos
    kind = exchange.save(
        experiment.model,
        model,
        directory,
        length=experiment.train.length,
        tokens=tokens,
        files=files,
    )
    written = ", ".join([f"config.json ({kind})", "safetensors", *sorted(files)])
    return f"{directory}: {written}" + (f" ({remark})" if remark else "")
