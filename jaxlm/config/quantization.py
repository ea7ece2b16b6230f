"""Numbers in few bits: formats, which weights have which, and how activations and caches are rounded.

What a format's numbers are is stated once, in `jaxlm/quantize/grid.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxlm.config.adapter import BLOCKS
from jaxlm.config.errors import UsageError
from jaxlm.config.numbers import divisors


@dataclass(frozen=True)
class Integers:
    """Integers of 2 to 8 bits times a scale; with `symmetric=False`, counted from a zero point of their own."""

    bits: int = 8
    symmetric: bool = True
    group: int = 0
    """Inputs that share a scale; 0 is all inputs of an output, -1 the whole matrix."""


@dataclass(frozen=True)
class Nf4:
    """Four bits for normal numbers: 16 quantiles times a scale (Dettmers et al. 2023, arXiv:2305.14314)."""

    group: int = 64
    """Inputs that share a scale."""
    double: bool = True
    """Scales are rounded too, to 8 bits in blocks of 256: 0.127 bits a number instead of 0.5."""


@dataclass(frozen=True)
class Fp8:
    """Floating-point numbers of 8 bits, one scale for each output (Micikevicius et al. 2022, arXiv:2209.05433)."""

    kind: Literal["e4m3", "e5m2"] = "e4m3"


Format = Integers | Nf4 | Fp8


@dataclass(frozen=True)
class Kept:
    """As it is."""


@dataclass(frozen=True)
class NoActivations:
    """Only weights are rounded: products are as exact as the computation's own format."""


@dataclass(frozen=True)
class Dynamic:
    """What a product takes is rounded token by token, each token's largest at the end of the grid."""

    bits: int = 8


@dataclass(frozen=True)
class Static:
    """What a product takes is rounded by one scale, which a calibration has found; beyond it is clipped."""

    bits: int = 8
    range: Literal["absmax", "percentile", "mse"] = "absmax"
    """Where it clips: at the largest, at what 99.99 % are below, or where least is lost."""


Activations = NoActivations | Dynamic | Static


@dataclass(frozen=True)
class Common:
    """As it is for all weights."""


@dataclass(frozen=True)
class Rule:
    """The format of the weights whose dotted name holds the regular expression `targets`."""

    targets: str = BLOCKS
    format: Integers | Nf4 | Fp8 | Kept = Integers()
    activations: Common | NoActivations | Dynamic | Static = Common()
    """How what these weights take is rounded."""


Cache = Literal["model", "int8"]
"""Keys and values of decoding: in the computation's format, or in 8 bits with a scale for each head and token."""


@dataclass(frozen=True)
class Nearest:
    """Each number has the nearest code."""


@dataclass(frozen=True)
class Hqq:
    """Zero points that lose least by a norm that forgives outliers, found without any text (half-quadratic
    quantization, Badri and Shaji 2023).
    """


@dataclass(frozen=True)
class Gptq:
    """What a code loses the numbers after it make up for (Frantar et al. 2022, arXiv:2210.17323)."""

    damp: float | None = None
    """Added to the diagonal of the Hessian, in parts of its mean; None is which of 0.01, 0.1 and 1 loses least on
    the last quarter of the rows, to which nothing is fitted.
    """
    order: Literal["given", "activations"] = "activations"
    """Inputs as they come, or those of the largest activations first."""


@dataclass(frozen=True)
class Awq:
    """Inputs of large activations are scaled up before rounding, and clipped where that loses less (Lin et al.
    2023, arXiv:2306.00978).
    """


Method = Nearest | Hqq | Gptq | Awq


@dataclass(frozen=True)
class NoSmoothing:
    """Activations are as they are."""


@dataclass(frozen=True)
class Smooth:
    """Channels of large activations are divided, and weights multiplied (Xiao et al. 2022, arXiv:2211.10438,
    equation 4).
    """

    alpha: float = 0.5
    """How much of the difficulty goes from activations to weights."""


@dataclass(frozen=True)
class NoRotation:
    """The residual stream is as it is."""


@dataclass(frozen=True)
class Rotated:
    """The residual stream of a decoder is turned by a random orthogonal matrix before anything is rounded (Ashkboos
    et al. 2024, arXiv:2404.00456, section 4, stage 1a). A tied head becomes a matrix of its own.
    """

    seed: int = 0


@dataclass(frozen=True)
class NoQuantization:
    """All numbers in the parameters' format."""


@dataclass(frozen=True)
class Rounded:
    """A model stored in few bits.

    A weight has the format of the first rule that finds its name; others are kept.
    """

    rules: tuple[Rule, ...] = (Rule(),)
    activations: Activations = NoActivations()
    cache: Cache = "model"
    smoothing: NoSmoothing | Smooth = NoSmoothing()
    method: Method = Nearest()
    """How codes are chosen."""
    rotation: NoRotation | Rotated = NoRotation()


@dataclass(frozen=True)
class StraightThrough:
    """Scales follow the weights; the gradient passes the rounding where nothing is clipped."""


@dataclass(frozen=True)
class Lsq:
    """Scales are learned (Esser et al. 2020, arXiv:1902.08153)."""


@dataclass(frozen=True)
class Aware:
    """Training through the rounding that `Rounded` with the same rules stores."""

    rules: tuple[Rule, ...] = (Rule(),)
    activations: NoActivations | Dynamic = NoActivations()
    scales: StraightThrough | Lsq = StraightThrough()


Quantization = NoQuantization | Rounded | Aware


def levels(format: Integers) -> tuple[int, int]:
    """The lowest and the highest code. Raises UsageError for bits that there are not."""
    if not 2 <= format.bits <= 8:
        raise UsageError(f"Integers(bits={format.bits}): there are 2 to 8 bits")
    if format.symmetric:
        return -(2 ** (format.bits - 1)), 2 ** (format.bits - 1) - 1
    return 0, 2**format.bits - 1


def groups(format: Format, inputs: int) -> int:
    """Number of scales along the inputs of a matrix.

    Raises UsageError for groups that do not divide the inputs, with the nearest that do.
    """
    match format:
        case Fp8() | Integers(group=0 | -1):
            return 1
        case Integers(group=group) | Nf4(group=group):
            if group < 1 or inputs % group:
                fit = divisors(inputs)
                near = [n for n in fit if n <= group][-1:] + [n for n in fit if n > group][:1]
                raise UsageError(
                    f"{type(format).__name__}(group={group}) does not divide a matrix of {inputs} inputs: use "
                    f"{' or '.join(map(str, near))}"
                )
            return inputs // group
