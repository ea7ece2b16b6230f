"""A run as other libraries read it."""

from __future__ import annotations

from pathlib import Path

from jaxlm.config.model import EncoderDecoder, generating
from jaxlm.families.known import published
from jaxlm.interop import exchange, safetensors
from jaxlm.runs.directory import read_experiment
from jaxlm.tokenizers.publish import exported
from jaxlm.train.load import load_run


def export(run: str, directory: Path) -> str:
    """Writes the newest checkpoint of a run and its tokenizer's files; returns what was written, in a line.

    A generator beside the model becomes a model of its own, in the directory `generator` within. Raises UsageError
    for a model that no known family has and for a directory that is there already, both before a weight is read;
    Failure for a run without a checkpoint or a damaged one.
    """
    experiment = read_experiment(run)
    length, kind, generator = experiment.train.length, experiment.model, generating(experiment.model)
    kinds = {directory: kind} if generator is None else {directory: kind.alone, directory / "generator": generator}
    settings, *_ = (published(one, length)[1] for one in kinds.values())
    safetensors.refuse_existing(directory)
    model, tokenizer, _ = load_run(run)
    models = (model,) if generator is None else (model.alone, model.generating)
    files, remark = exported(tokenizer, settings["model_type"])
    tokens = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad}
    if isinstance(kind, EncoderDecoder) and kind.start is None:
        tokens["decoder_start_token_id"] = tokenizer.bos
    for (there, one), model in zip(kinds.items(), models, strict=True):
        exchange.save(one, model, there, length=length, tokens=tokens, files=files)
    more = [] if generator is None else ["generator"]
    written = ", ".join([f"config.json ({settings['model_type']})", "safetensors", *sorted(files), *more])
    return f"{directory}: {written}" + (f" ({remark})" if remark else "")
