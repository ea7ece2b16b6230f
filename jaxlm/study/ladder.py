"""Experiments of several sizes and lengths, made of one: what scaling laws are fitted to. Configs only, no jax."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jaxlm.config.block import Attention, Block, Gated, Layers, Moe, Plain
from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.flops import active_parameters, flops_of
from jaxlm.config.model import Decoder, Encoder, EncoderDecoder, Model
from jaxlm.config.optimizer import Constant, WarmupStableDecay
from jaxlm.config.parametrization import MuP

Length = Callable[[Experiment], float]
"""Tokens that an experiment is trained on."""
Rate = Callable[[Experiment, Experiment], float]
"""(base, wider or deeper) -> what the peak of the learning rate is multiplied by."""


# --- sizes -------------------------------------------------------------------------------------------------


def widened(model: Model, embed: int) -> Model:
    """The model with a stream of other width: heads and hidden features in proportion, heads of the same size.

    Raises UsageError where a number of them would not be whole.
    """

    def scaled(name: str, value: int) -> int:
        if value * embed % model.embed:
            raise UsageError(f"{name} is {value} at embed {model.embed}: at {embed} it would not be a whole number")
        return value * embed // model.embed

    def attention(a: Attention) -> Attention:
        heads, kv_heads = scaled("attention.heads", a.heads), scaled("attention.kv_heads", a.kv_heads)
        return dataclasses.replace(a, heads=heads, kv_heads=kv_heads)

    def wide(one: Block) -> Block:
        match one.mlp:
            case Gated(width) | Plain(width):
                mlp = dataclasses.replace(one.mlp, width=scaled("mlp.width", width))
            case Moe(width=width, shared=shared):
                own = {"width": scaled("mlp.width", width), "shared": scaled("mlp.shared", shared)}
                mlp = dataclasses.replace(one.mlp, **own)
        return dataclasses.replace(one, attention=attention(one.attention), mlp=mlp)

    if not isinstance(model, Decoder | Encoder | EncoderDecoder):
        return dataclasses.replace(model, embed=embed, width=scaled("width", model.width))
    return dataclasses.replace(model, embed=embed, block=_each(model.block, wide))


def _each(layers: Layers, change: Callable[[Block], Block]) -> Layers:
    """All blocks of a stack changed."""
    if isinstance(layers, Block):
        return change(layers)
    parts = {field.name: tuple(map(change, getattr(layers, field.name))) for field in dataclasses.fields(layers)}
    return dataclasses.replace(layers, **parts)


def deepened(model: Model, layers: int) -> Model:
    """The model with other layers; of an encoder-decoder, of both halves each."""
    if isinstance(model, EncoderDecoder):
        return dataclasses.replace(model, encoder_layers=layers, decoder_layers=layers)
    return dataclasses.replace(model, layers=layers)


# --- lengths and learning rates ----------------------------------------------------------------------------


def per_parameter(ratio: float) -> Length:
    """So many tokens a parameter that a token meets, embeddings included (Hoffmann et al. 2022: about 20)."""
    return lambda experiment: ratio * active_parameters(experiment.model)


def of_flops(budget: float) -> Length:
    """As many tokens as a budget of training FLOPs pays for, by `config.flops.flops_of`."""
    return lambda experiment: budget / flops_of(experiment)["training"]


def narrower(power: float = 0.5) -> Rate:
    """Peaks in proportion to embed ** -power: 0 for one rate at all widths, 1 for Adam's hidden matrices."""
    return lambda base, other: (base.model.embed / other.model.embed) ** power


def suited(base: Experiment, other: Experiment) -> float:
    """`narrower()`; one peak at all widths by muP, which divides the rates of layers by the width itself."""
    if isinstance(getattr(base.model, "parametrization", None), MuP):
        return 1.0
    return narrower()(base, other)


# --- ladders -----------------------------------------------------------------------------------------------


def ladder(
    base: Experiment,
    sizes: Sequence[tuple[int, int]],
    lengths: Sequence[Length],
    rate: Rate = suited,
) -> list[Experiment]:
    """Every size, (embed, layers), at every length, with names of their own.

    Steps follow from the length; warm-up and decay keep their share of them, which a law needs: a schedule that
    does not end with its run leaves a loss above what the model could reach (Hoffmann et al. 2022, section 3.1).
    Raises UsageError for a size that does not divide or a length of less than one step.
    """
    found = []
    for embed, layers in sizes:
        model = deepened(widened(base.model, embed), layers)
        sized = dataclasses.replace(base, model=model)
        for length in lengths:
            steps = round(length(sized) / (base.train.batch * base.train.length))
            if steps < 1:
                raise UsageError(f"{embed} x {layers} gets {length(sized):.3g} tokens, less than one batch")
            name = f"{base.name}-{embed}x{layers}-{steps}"
            long = lasting(dataclasses.replace(sized, name=name), steps)
            found.append(_rated(long, rate(base, sized)))
    return found


def lasting(experiment: Experiment, steps: int) -> Experiment:
    """The experiment over so many steps; warm-up and decay keep their share."""
    schedule, share = experiment.optimizer.schedule, steps / experiment.train.steps
    parts = {
        name: round(share * getattr(schedule, name)) for name in ("warmup", "decay") if hasattr(schedule, name)
    }
    train = dataclasses.replace(experiment.train, steps=steps)
    return _scheduled(dataclasses.replace(experiment, train=train), dataclasses.replace(schedule, **parts))


def _rated(experiment: Experiment, factor: float) -> Experiment:
    schedule = experiment.optimizer.schedule
    return _scheduled(experiment, dataclasses.replace(schedule, peak=schedule.peak * factor))


def _scheduled(experiment: Experiment, schedule: object) -> Experiment:
    return dataclasses.replace(experiment, optimizer=dataclasses.replace(experiment.optimizer, schedule=schedule))


# --- branches ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leg:
    """An experiment that takes up, with optimizer and data, where the run of another one ended."""

    experiment: Experiment
    after: str = ""
    """That one's name; empty where it begins by itself."""


def branches(base: Experiment, steps: Sequence[int], decay: float = 0.2) -> list[Leg]:
    """One stable run, and a decay of the learning rate to its end at each of `steps`: as many numbers of tokens for
    the price of the longest run and the decays (Hu et al. 2024, arXiv:2404.06395, section 4).

    `decay` is each branch's share. The base's schedule gives peak, warm-up and, if it has one, `final`. A branch is
    the very experiment that a run of its own would be (`WarmupStableDecay` over its steps), of which the trunk has
    already taken the steps before the decay: `jaxlm run --after` and `train.run.run(after=...)` check that and take
    over the state. The trunk comes in pieces, as a run keeps its last state. Raises UsageError for steps that do
    not rise, or of which a decay begins within the warm-up or before the decay of a shorter one.
    """
    schedule = base.optimizer.schedule
    stable = Constant(schedule.peak, schedule.warmup)
    cuts = [total - round(decay * total) for total in steps]
    if any(second <= first for first, second in pairwise([schedule.warmup, *cuts])) or not 0 < decay < 1:
        raise UsageError(
            f"branches of {', '.join(map(str, steps))} steps with a decay of {decay:g} begin at "
            f"{', '.join(map(str, cuts))}: they must rise, and begin after the warm-up of {schedule.warmup}"
        )
    legs, before = [], ""
    for total, cut in zip(steps, cuts):
        decayed = WarmupStableDecay(schedule.peak, schedule.warmup, total - cut, getattr(schedule, "final", 0.0))
        trunk = _piece(base, f"{base.name}-stable-{cut}", cut, stable)
        legs += [Leg(trunk, before), Leg(_piece(base, f"{base.name}-{total}", total, decayed), trunk.name)]
        before = trunk.name
    return legs


def _piece(base: Experiment, name: str, steps: int, schedule: object) -> Experiment:
    train = dataclasses.replace(base.train, steps=steps)
    return _scheduled(dataclasses.replace(base, name=name, train=train), schedule)
