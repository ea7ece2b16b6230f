"""How a model knows where its tokens stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Unscaled:
    """Planes turn as they were trained."""


@dataclass(frozen=True)
class Interpolated:
    """Every plane turns `factor` times slower: positions are interpolated (Chen et al. 2023, arXiv:2306.15595)."""

    factor: float = 8.0


@dataclass(frozen=True)
class Yarn:
    """Planes of few turns in `length` are interpolated, the others not (Peng et al. 2023, arXiv:2309.00071).

    Queries and keys also grow by 0.1 ln(factor) + 1, their scores by its square.
    """

    factor: float = 8.0
    length: int = 4096
    """Positions that the model was trained on."""
    fast: float = 32.0
    """Planes of at least as many turns in `length` are left alone."""
    slow: float = 1.0
    """Planes of at most as many turns in `length` are interpolated whole; in between, in part."""


@dataclass(frozen=True)
class Llama3:
    """As Yarn, with a ramp in the number of turns, and scores as they were (Llama 3.1, its released code)."""

    factor: float = 8.0
    length: int = 8192
    """Positions that the model was trained on."""
    fast: float = 4.0
    """Planes of at least as many turns in `length` are left alone."""
    slow: float = 1.0
    """Planes of at most as many turns in `length` are interpolated whole; in between, in part."""


@dataclass(frozen=True)
class DynamicNtk:
    """Planes turn by a larger base, the slow ones most: NTK-aware scaling, as large as rows of `target` ask for.

    The base is theta * (factor * target / length - (factor - 1)) ** (d / (d - 2)) for d rotated features, and theta
    where `target` is at most `length` (Peng et al. 2023, arXiv:2309.00071, section 3.3; transformers' "dynamic").
    There the target is each row's own length at every moment, and a cache keeps keys that were turned by the bases
    of shorter rows: decoding differs from one pass over the same row. Here it is stated, so that angles are a
    function of positions alone, the same for both.
    """

    factor: float = 2.0
    length: int = 4096
    """Positions that the model was trained on."""
    target: int = 8192
    """Tokens of the rows that planes are turned for; transformers turns so in rows of exactly that length."""


Scaling = Unscaled | Interpolated | DynamicNtk | Yarn | Llama3
"""How the planes of a trained model turn in rows longer than it was trained on."""


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864)."""

    theta: float = 10_000.0
    """Base of the geometric series of wavelengths."""
    fraction: float = 1.0
    """Share of each head's features that is rotated; the rest passes unchanged."""
    pairs: Literal["halves", "interleaved"] = "halves"
    """Which features form a plane: (i, i + d/2) as in LLaMA, or (2i, 2i + 1) as in the paper."""
    scaling: Scaling = Unscaled()


@dataclass(frozen=True)
class Sinusoidal:
    """Sines and cosines of the position are added to the token embedding (Vaswani et al. 2017, section 3.5)."""

    theta: float = 10_000.0
    """Base of the geometric series of wavelengths."""
    pairs: Literal["halves", "interleaved"] = "interleaved"
    """Where the cosine of a sine lies: half of the features after it, or next to it as in the paper."""


@dataclass(frozen=True)
class Alibi:
    """Scores fall with distance, by a slope for each head (Press et al. 2021, arXiv:2108.12409).

    In an encoder they fall on both sides alike.
    """

    factor: float = 1.0
    """Of all slopes (Falcon subtracts before it divides by sqrt(head): head ** -0.5)."""


@dataclass(frozen=True)
class Learned:
    """A trained vector for each position, added to the token embedding (GPT-2, BERT)."""

    length: int = 1024
    """Number of positions that have a vector."""
    offset: int = 0
    """Rows of the table before the first position's, for what is no position (OPT has 2)."""


@dataclass(frozen=True)
class RelativeBias:
    """A trained number for each head and bucket of distances, added to the scores of every layer (T5).

    Raffel et al. 2019 (arXiv:1910.10683, section 2.1) and its released code: half of the buckets are single
    distances, the others grow geometrically. In an encoder each side has half of them; an encoder-decoder has a
    table for each half. Cross-attention has none.
    """

    buckets: int = 32
    distance: int = 128
    """Distances from here on share the last bucket."""


@dataclass(frozen=True)
class Shaw:
    """Trained vectors of clipped distances, added to keys and values; a layer has its own, which its heads share.

    Shaw et al. 2018 (arXiv:1803.02155, equations 3 to 6, and section 3.3 for the heads). In self-attention only.
    """

    clip: int = 16
    """Distances from here on share the last vector of their side."""
    vectors: Literal["keys_and_values", "keys"] = "keys_and_values"
    """What distances have vectors for; those of keys alone do as well (table 3)."""


@dataclass(frozen=True)
class TransformerXl:
    """Queries also meet projected sinusoids of distances (Dai et al. 2019, arXiv:1901.02860, section 3.3).

    Every layer has a projection of its own, as wide as that of its keys, and two biases of queries for each head:
    one where they meet keys, one where they meet distances. Gopher and Chinchilla. In self-attention only.
    """


@dataclass(frozen=True)
class Disentangled:
    """Queries also meet vectors of distances, and keys meet them (He et al. 2020, arXiv:2006.03654, equation 4).

    All layers share the table; each projects it as it projects its tokens to queries and keys (section 3.1 of
    DeBERTa-v3, arXiv:2111.09543). In an encoder's self-attention only; scores are products of three kinds, so that
    the paper divides them by sqrt(3 head): `Attention.scale`.
    """

    buckets: int = 256
    """Of each side: half are single distances, the others grow geometrically."""
    distance: int = 512
    """Distances from here on share the last bucket of their side."""
    vectors: Literal["plain", "normed"] = "normed"
    """Whether the model's kind of norm makes the table's rows alike before they are projected."""


@dataclass(frozen=True)
class NoPosition:
    """No position information beyond the causal mask (Kazemnejad et al. 2023, arXiv:2305.19466)."""


Position = Rope | Sinusoidal | Learned | Alibi | RelativeBias | Shaw | TransformerXl | Disentangled | NoPosition
