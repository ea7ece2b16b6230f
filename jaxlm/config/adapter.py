"""Adapters: few parameters beside a model that stays as it is.

Targets are regular expressions, searched in the dotted names of weights ("blocks.period.0.attention.query"). The
experts of a mixture are no weights of this kind: no pattern finds them. Beside an adapter, leaves whose names match
`also` are trained themselves, as a new classifier has to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BLOCKS = r"(^|\.)(blocks|encoder)\."
"""Every projection of the blocks."""
CLASSIFIER = r"^classifier\."

Scaling = Literal["rank", "root"]
"""What alpha is divided by: the rank r, or sqrt(r), with which the size of outputs does not depend on r (rsLoRA,
Kalajdzievski 2023, arXiv:2312.03732, theorem 3.2)."""


@dataclass(frozen=True)
class NoAdapter:
    """The whole model is trained."""


@dataclass(frozen=True)
class Lora:
    """W + alpha / rank * A B, of which A and B are trained (Hu et al. 2021, arXiv:2106.09685, section 4.1)."""

    rank: int = 8
    alpha: float = 16.0
    scaling: Scaling = "rank"
    dropout: float = 0.0
    """Probability of zeroing a feature of what A is given, in training."""
    targets: str = BLOCKS
    also: str = CLASSIFIER


@dataclass(frozen=True)
class Dora:
    """LoRA whose sum with W is brought to a trained length for each output (Liu et al. 2024, arXiv:2402.09353)."""

    rank: int = 8
    alpha: float = 16.0
    scaling: Scaling = "rank"
    dropout: float = 0.0
    """As in `Lora`; W is given all features."""
    targets: str = BLOCKS
    also: str = CLASSIFIER


@dataclass(frozen=True)
class Vera:
    """Random matrices that all weights share, and two trained vectors for each (Kopiczko et al. 2023,
    arXiv:2310.11454, equation 2).
    """

    rank: int = 256
    initial: float = 0.1
    """Of the vector of the rank's features; that of outputs begins at zero."""
    seed: int = 0
    """The random matrices follow from it: no checkpoint holds them."""
    dropout: float = 0.0
    """As in `Lora`."""
    targets: str = BLOCKS
    also: str = CLASSIFIER


@dataclass(frozen=True)
class Ia3:
    """A trained factor for each feature of keys, of values, and of what MLPs are wide in (Liu et al. 2022,
    arXiv:2205.05638, section 3.3).
    """

    targets: str = rf"{BLOCKS}.*\b(key|value)$"
    """Weights whose outputs are multiplied, biases too."""
    inputs: str = rf"{BLOCKS}.*\bdown$"
    """Weights whose inputs are; an empty pattern is none."""
    also: str = CLASSIFIER


@dataclass(frozen=True)
class BitFit:
    """Biases are trained and nothing else, those of norms too (Ben Zaken et al. 2021, arXiv:2106.10199)."""

    also: str = CLASSIFIER


@dataclass(frozen=True)
class Bottleneck:
    """y + expand(activation(shrink(y))) of what a branch adds to the residual stream (Houlsby et al. 2019,
    arXiv:1902.00751, figure 2).

    With `targets` of MLPs only there is one in each layer (Pfeiffer et al. 2020, arXiv:2005.00247, section 3.1.1).
    """

    width: int = 64
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "gelu"
    targets: str = rf"{BLOCKS}.*\b(attention\.out|cross\.out|down)$"
    also: str = CLASSIFIER


@dataclass(frozen=True)
class PrefixTuning:
    """Trained keys and values that every token of a layer sees (Li and Liang 2021, arXiv:2101.00190, section 4).

    They have no position, and no window hides them. They are trained themselves, not through an MLP.
    """

    length: int = 16
    """Of the keys, in every layer."""
    also: str = CLASSIFIER


@dataclass(frozen=True)
class PromptTuning:
    """Trained vectors in front of every document's token vectors (Lester et al. 2021, arXiv:2104.08691).

    Positions of the text count on from theirs; no window hides them. Of decoders: there they see only each other,
    so that one copy in front of a row is as good as one in front of each of its documents.
    """

    length: int = 16
    """In tokens."""
    also: str = CLASSIFIER


Adapter = NoAdapter | Lora | Dora | Vera | Ia3 | BitFit | Bottleneck | PrefixTuning | PromptTuning
