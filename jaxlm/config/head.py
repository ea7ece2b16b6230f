"""Output heads: from hidden states to scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxlm.config.block import Activation


@dataclass(frozen=True)
class Tied:
    """Logits by the token embedding's transpose (Press and Wolf 2017, arXiv:1608.05859)."""

    softcap: float | None = None
    scale: float = 1.0
    """Factor of hidden states before the product (T5: embed ** -0.5)."""


@dataclass(frozen=True)
class Untied:
    """Logits by a matrix of their own."""

    softcap: float | None = None
    bias: Literal["none", "all"] = "none"


@dataclass(frozen=True)
class Transformed:
    """Logits by the token embedding's transpose of norm(activation(dense(x))), and a bias for each token (BERT).

    The dense layer has as many outputs as the embedding has features, the norm is of the model's kind.
    """

    activation: Activation = "gelu"
    bias: Literal["vocab", "all"] = "all"
    """What has a bias: the logits only, or the dense layer too."""


@dataclass(frozen=True)
class NoHead:
    """Hidden states are all there is: a sentence encoder, or one whose only scores are its classifier's."""


Head = Tied | Untied | Transformed | NoHead
