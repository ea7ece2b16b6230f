"""How initial parameters and learning rates depend on a model's width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxlm.config.block import Moe, blocks
from jaxlm.config.head import Transformed
from jaxlm.config.optimizer import AdamW, Optimizer
from jaxlm.config.position import Alibi, Learned, NoPosition, Rope, Sinusoidal

if TYPE_CHECKING:
    from jaxlm.config.model import Decoder


@dataclass(frozen=True)
class Standard:
    """Kernels of variance 1 / inputs and one learning rate for all, whatever the width."""


@dataclass(frozen=True)
class MuP:
    """Maximal update parametrization: what learning rate is best at a base width is best at others.

    Yang et al. 2022 (arXiv:2203.03466), table 8 for Adam, in a model m times as wide as the base:

        kernels of layers     variance 1 / inputs, learning rate / m
        token vectors         variance as in the base, the same learning rate, as norms, biases and tables have
        head                  variance as in the base, the same learning rate, scores / m
        attention             scores / head, equal to the usual / sqrt(head) in the base

    At the base width everything is as by `Standard`. Decay takes the same share of every kernel at all widths, not
    divided by m. Depth is not part of it.
    """

    embed: int = 256
    """Features of the base model's stream; its heads and hidden features are in proportion."""
    head: int = 64
    """Features of a head of the base model."""


Parametrization = Standard | MuP


def times_base(model: Any) -> float:
    """How many times as wide as its base a model is; 1 where width does not count."""
    match getattr(model, "parametrization", Standard()):
        case MuP(embed):
            return model.embed / embed
    return 1.0


def score_scale(parametrization: Parametrization, head: int, scale: float | None) -> float | None:
    """`scale` of an attention whose heads have so many features: that of its config, or by base / head of it."""
    match parametrization:
        case MuP(head=base) if head != base:
            return (head**-0.5 if scale is None else scale) * (base / head) ** 0.5
    return scale


def parametrization_problems(model: Decoder, optimizer: Optimizer) -> Iterator[str]:
    """What muP has no rule for here, by name."""
    if isinstance(model.parametrization, Standard):
        return
    mup = "model.parametrization is mup"
    if not isinstance(optimizer, AdamW):
        yield f"{mup}: its learning rates are those of Adam; optimizer is {type(optimizer).__name__}, use adamw"
    if not isinstance(model.position, Rope | Alibi | Learned | Sinusoidal | NoPosition):
        yield f"{mup}: model.position is {type(model.position).__name__}, for which it has no rule; use rope"
    if any(isinstance(one.mlp, Moe) for one in blocks(model.block, model.layers)):
        yield f"{mup}: a mixture of experts has a router, for which it has no rule; use gated"
    if type(model.embedding).__name__ == "Scaled":
        yield f"{mup}: model.embedding is Scaled, which grows with width; use unchanged"
    if type(model.classifier).__name__ != "NoClassifier" or isinstance(model.head, Transformed):
        yield f"{mup}: it has rules for the heads tied and untied only, and none for classifiers"
