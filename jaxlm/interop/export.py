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
    kind = kind if generator is None else kind.alone
    family = published(kind, length)[1]["model_type"]
    if generator is not None:
        published(generator, length, family)
    safetensors.refuse_existing(directory)
    model, tokenizer, _ = load_run(run)
    files, remark = exported(tokenizer, family)
    tokens = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad}
    if isinstance(kind, EncoderDecoder) and kind.start is None:
        tokens["decoder_start_token_id"] = tokenizer.bos
    more = {"length": length, "tokens": tokens, "files": files}
    written = [f"config.json ({family})", "safetensors", *sorted(files)]
    if generator is None:
        exchange.save(kind, model, directory, **more)
    else:
        exchange.save(kind, model.alone, directory, **more)
        exchange.save(generator, model.generating, directory / "generator", model_type=family, **more)
        written.append("generator")
    return f"{directory}: {', '.join(written)}" + (f" ({remark})" if remark else "")
