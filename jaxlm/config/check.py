"""What can be seen to be wrong with an experiment before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator

from jaxlm.config.adapter import NoAdapter
from jaxlm.config.adapter_check import adapter_problems
from jaxlm.config.data import Bytes, SentencePiece, Whitespace, WordPiece
from jaxlm.config.distillation import PolicyGradient
from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import OF_INITIAL, Experiment, OfInitial
from jaxlm.config.flags import find
from jaxlm.config.model import Decoder
from jaxlm.config.needs import data_problems
from jaxlm.config.objective import Custom, Distillation, FillInTheMiddle, on_labels
from jaxlm.config.objective_check import objective_problems
from jaxlm.config.parametrization import parametrization_problems
from jaxlm.config.paths import leaves
from jaxlm.config.position import Learned
from jaxlm.config.quantization import Aware, Rounded
from jaxlm.config.recurrent import Recurrent, Rwkv4, head_count
from jaxlm.config.remat import kept
from jaxlm.config.special import more
from jaxlm.config.surgery import Cut

MAY_BE_ZERO = {
    "seed",
    "log",
    "evaluate",
    "checkpoint",
    "telemetry",
    "tasks",
    "warmup",
    "held_out",
    "min_chars",
    "decay",
    "shared",
    "offset",
    "sentinels",
    "copies",
    "target_length",
    "types",
    "start",
    "label",
    "ahead",
    "relation_heads",
    "prompt",
}
ZERO_IS_A_CHOICE = {
    "where.mesh.data",
    "where.pipeline.micro_batches",
    "cut.heads",
    "cut.width",
    "cut.embed",
    "objective.likeliest",
}
MAY_BE_NEGATIVE = {"group"}
SHARES = {
    "dropout",
    "fraction",
    "final",
    "max_repetition",
    "max_symbols",
    "b1",
    "b2",
    "momentum",
    "masked",
    "replaced",
    "suffix_first",
    "short",
}


def check(experiment: Experiment) -> None:
    """Raises one UsageError that lists everything wrong, each with its path and what to do."""
    if any(isinstance(getattr(experiment, name), OfInitial) for name in OF_INITIAL):
        raise UsageError(f"{experiment.name} goes on from a model: name it, --init MODEL_OR_RUN")
    problems = [*_ranges(experiment), *_agreement(experiment)]
    if problems:
        raise UsageError("\n".join(problems))


def _trained(experiment: Experiment) -> Iterator[str]:
    """What is to be trained, and of whom to learn."""
    adapter, quantization, taught = experiment.adapter, experiment.quantization, experiment.objective
    if isinstance(quantization, Rounded) and isinstance(adapter, NoAdapter):
        yield (
            "quantization is Rounded: numbers stored in few bits are not trained; add an adapter (adapter:lora), "
            "or train through the rounding (quantization:aware)"
        )
    if isinstance(quantization, Aware) and not isinstance(adapter, NoAdapter):
        yield (
            f"quantization is Aware: the sum of a weight and its {type(adapter).__name__} would be rounded; "
            "use quantization:rounded below an adapter, or no adapter"
        )
    if experiment.cut != Cut() and not experiment.initial:
        yield "cut keeps a part of an initial model, and there is none: name it, --init MODEL_OR_RUN"
    drawn = isinstance(taught, Distillation) and isinstance(taught.policy, PolicyGradient)
    if drawn and taught.labels and experiment.train.batch < 2:
        yield (
            f"train.batch is {experiment.train.batch}: with objective.labels {taught.labels} every other row has "
            "labels and the rest are drawn; use 2 or more, or objective.labels 0"
        )
    if isinstance(taught, Distillation) and not experiment.teacher:
        yield "teacher is empty: Distillation learns from a model; name it, --teacher RUN"
    if experiment.teacher and not isinstance(taught, Distillation | Custom):
        yield f"teacher is {experiment.teacher}: {type(taught).__name__} asks for none; use objective:distillation"


def _ranges(experiment: Experiment) -> Iterator[str]:
    for path, leaf in leaves(experiment).items():
        name, value = path.split(".")[-1], leaf.value
        if isinstance(value, bool) or not isinstance(value, int | float) or name in MAY_BE_NEGATIVE:
            continue
        least = 0 if name in MAY_BE_ZERO or path in ZERO_IS_A_CHOICE else 1
        if isinstance(value, int) and leaf.hint is not float and value < least:
            yield f"{path} is {value}: expected at least {least}"
        elif name in SHARES and not 0 <= value <= 1:
            yield f"{path} is {value}: expected a share between 0 and 1"
        elif not math.isfinite(value):
            yield f"{path} is {value}: expected a finite number"
        elif value < 0:
            yield f"{path} is {value}: expected no negative number"


def _agreement(experiment: Experiment) -> Iterator[str]:
    train, where, model = experiment.train, experiment.where, experiment.model
    for ask, name in ((kept, where.remat), *((find, one) for one in where.flags)):
        try:
            ask(name)
        except UsageError as error:
            yield str(error)
    if bool(where.tasks) != bool(where.every.tasks):
        yield (
            f"where.tasks has {len(where.tasks)} files and where.every.tasks is {where.every.tasks}: name what to "
            "ask and how often, both or neither"
        )
    if where.micro_batches > 0 and train.batch % where.micro_batches:
        yield (f"train.batch is {train.batch}: where.micro_batches = {where.micro_batches} does not divide it")
    learned = not isinstance(model, Recurrent) and isinstance(model.position, Learned)
    if learned and model.position.length < train.length:
        yield (f"model.position.length is {model.position.length}, train.length {train.length}: add positions")
    if (
        learned
        and isinstance(on_labels(experiment.objective), FillInTheMiddle)
        and model.position.length < train.length + 3
    ):
        yield (
            f"model.position.length is {model.position.length}: FillInTheMiddle adds 3 tokens to a text of "
            f"train.length = {train.length}; add positions"
        )
    if getattr(model, "ahead", 0) >= train.length:
        yield f"model.ahead is {model.ahead}: rows of train.length = {train.length} have no token so far ahead"
    if isinstance(model, Decoder):
        yield from parametrization_problems(model, experiment.optimizer)
    yield from objective_problems(experiment.objective, model)
    yield from adapter_problems(experiment.adapter, model, train.length)
    yield from _trained(experiment)
    yield from data_problems(experiment.objective, experiment.data, experiment.packing)
    if isinstance(model, Recurrent) and not isinstance(model, Rwkv4):
        try:
            head_count(model)
        except UsageError as error:
            yield str(error)
    needed = _vocabulary(experiment)
    if needed and model.vocab < needed:
        yield f"model.vocab is {model.vocab}: the tokenizer has {needed} tokens"
    start = getattr(model, "start", None)
    if start is not None and start >= model.vocab:
        yield f"model.start is {start}: the embedding has {model.vocab} tokens"
    for path, leaf in leaves(model).items():
        if path.endswith("kv_heads") and leaf.value > 0:
            heads = leaves(model)[path.removesuffix("kv_heads") + "heads"].value
            if heads % leaf.value:
                yield f"model.{path} is {leaf.value}: it must divide heads = {heads}"
        if path.endswith("top_k"):
            experts = leaves(model)[path.removesuffix("top_k") + "experts"].value
            if leaf.value > experts:
                yield f"model.{path} is {leaf.value}: it must be at most experts = {experts}"


def _vocabulary(experiment: Experiment) -> int | None:
    """Tokens of the tokenizer, where the config alone tells."""
    match experiment.tokenizer:
        case SentencePiece(vocab=vocab) | Whitespace(vocab=vocab) | WordPiece(vocab=vocab):
            return vocab
        case Bytes(special=special, sentinels=sentinels):
            return 260 + len(more(special, sentinels))
    return None
