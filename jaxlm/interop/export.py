"""A run as other libraries read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxlm.adapters.attach import innermost, merged
from jaxlm.config import Bottleneck, NoAdapter, PrefixTuning, PromptTuning
from jaxlm.config.codec import named
from jaxlm.config.errors import UsageError
from jaxlm.config.model import EncoderDecoder, generating
from jaxlm.config.paths import option_name
from jaxlm.families.known import published
from jaxlm.interop import exchange, peft_export, safetensors
from jaxlm.layers.projection import Dense, Weight
from jaxlm.layers.weights import map_weights, weights_of
from jaxlm.runs.directory import read_experiment
from jaxlm.tokenizers.publish import exported
from jaxlm.train.load import load_run


def export(run: str, directory: Path) -> str:
    """Writes the newest checkpoint of a run and its tokenizer's files; returns what was written, in a line.

    Adapters are merged into what they were trained over, and rounded numbers written as what they stand for.

    A generator beside the model becomes a model of its own, in the directory `generator` within. Raises UsageError
    for a model that no known family has and for a directory that is there already, both before a weight is read;
    Failure for a run without a checkpoint or a damaged one.
    """
    experiment = read_experiment(run)
    length, kind, generator = experiment.train.length, experiment.model, generating(experiment.model)
    kind = kind if generator is None else kind.alone
    if isinstance(experiment.adapter, PrefixTuning | PromptTuning | Bottleneck):
        raise UsageError(
            f"{run} has {option_name(type(experiment.adapter))}, which is no part of any weight and has no place "
            "in the files of others: use the run itself"
        )
    family = published(kind, length)[1]["model_type"]
    if generator is not None:
        published(generator, length, family)
    safetensors.refuse_existing(directory)
    model, tokenizer, _ = load_run(run)
    model = _dense(model)
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


def export_adapter(run: str, directory: Path) -> str:
    """Writes a run's adapter alone, as PEFT keeps it; returns what was written, in a line.

    Raises UsageError for a run without one, and as `peft_export.write`.
    """
    experiment = read_experiment(run)
    if isinstance(experiment.adapter, NoAdapter):
        raise UsageError(f"{run} has no adapter: all of its parameters were trained; leave out --adapter")
    safetensors.refuse_existing(directory)
    model, _, _ = load_run(run)
    base, _ = named(experiment.initial)
    length = experiment.train.length
    modules = peft_export.write(directory, experiment.model, model, experiment.adapter, length=length, base=base)
    return f"{directory}: adapter_config.json, adapter_model.safetensors ({len(modules)} modules)"


def _dense(model: Any) -> Any:
    """The model with each weight as a matrix, biases as they are. Raises UsageError for what is none."""
    rounded = any(not isinstance(innermost(weight), Dense) for weight in weights_of(model).values())
    model = merged(model, base="rounded" if rounded else "dense")

    def matrix(name: str, weight: Weight) -> Weight:
        if isinstance(weight, Dense):
            return weight
        return Dense(weight.dense(), weight.bias, weight.axes, weight.inputs)

    return map_weights(matrix, model)
