"""What a student learns of a teacher: its distributions over tokens, and what is inside of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxlm.config.errors import UsageError

# --- distributions over tokens -----------------------------------------------------------------------------


@dataclass(frozen=True)
class NoResponse:
    """Nothing of the teacher's distribution: only what is inside of it."""


@dataclass(frozen=True)
class SoftLabels:
    """T^2 KL(teacher || student) of distributions softened by a temperature T (Hinton et al. 2015,
    arXiv:1503.02531, section 2): gradients keep their size, whatever T is.
    """

    temperature: float = 2.0


@dataclass(frozen=True)
class ForwardKl:
    """KL(teacher || student): the student covers all that the teacher may say."""


@dataclass(frozen=True)
class ReverseKl:
    """KL(student || teacher): the student says what the teacher would (Gu et al. 2023, arXiv:2306.08543)."""


@dataclass(frozen=True)
class SkewedKl:
    """KL(teacher || skew teacher + (1 - skew) student) (Ko et al. 2024, arXiv:2402.03898, section 3.1)."""

    skew: float = 0.1


@dataclass(frozen=True)
class SkewedReverseKl:
    """KL(student || skew student + (1 - skew) teacher) (the same section)."""

    skew: float = 0.1


@dataclass(frozen=True)
class Jsd:
    """beta KL(teacher || M) + (1 - beta) KL(student || M), M = beta teacher + (1 - beta) student (Agarwal et al.
    2023, arXiv:2306.13649, equation 1).

    Near 0 and 1 this goes to 0; divided by beta (1 - beta), it goes to the forward KL at 0 and to the reverse at 1.
    """

    beta: float = 0.5
    scale: Literal["paper", "normalized"] = "paper"
    """As it stands, or divided by beta (1 - beta)."""


@dataclass(frozen=True)
class TotalVariation:
    """Half of the sum of absolute differences (Wen et al. 2023, arXiv:2307.15190, section 3.2)."""


Divergence = SoftLabels | ForwardKl | ReverseKl | SkewedKl | SkewedReverseKl | Jsd | TotalVariation
Response = SoftLabels | ForwardKl | ReverseKl | SkewedKl | SkewedReverseKl | Jsd | TotalVariation | NoResponse

LIKELY = ("likely", "likely_tokens")
"""What a teacher said of its likeliest tokens, where that was written down: the names of their log-probabilities,
and of the tokens, among the columns of rows.
"""

# --- whose text --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OffPolicy:
    """The texts of the data."""


@dataclass(frozen=True)
class OnPolicy:
    """Of a share of all batches, drawn by chance, the student's own continuations of the beginnings of texts
    (Agarwal et al. 2023, arXiv:2306.13649, algorithm 1: lambda). Nothing is differentiated through their drawing.
    """

    share: float = 0.5
    tokens: int = 64
    """Tokens of a continuation at most; beginnings are what is left of a row at most."""
    prompt: int = 0
    """Tokens of a beginning; 0 is all before the first target that counts, as in data of prompts and answers."""
    temperature: float = 1.0


@dataclass(frozen=True)
class PolicyGradient:
    """At every step the student's own continuations, of which each token also answers for those that follow it
    (MiniLLM, Gu et al. 2023, arXiv:2306.08543, equations 3 to 6): with the response `ReverseKl`, which is the exact
    part of a single step, the gradient of the reverse KL of whole texts.
    """

    mix: float = 0.2
    """The teacher's share in the distribution that tokens are drawn from, made up for by importance weights."""
    returns: Literal["length", "sum"] = "length"
    """Whether the rewards of what follows are divided by how many there are, so that short texts are not better."""
    tokens: int = 64
    prompt: int = 0
    """Both as in `OnPolicy`."""


Policy = OffPolicy | OnPolicy | PolicyGradient

# --- which layers ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Uniform:
    """The student's layer m and the teacher's layer m * k, counted from 1, k times as deep (Jiao et al. 2019,
    arXiv:1909.10351, section 4.1: g(m) = 3 m).
    """


@dataclass(frozen=True)
class First:
    """The first layers of both, in order."""

    count: int = 1


@dataclass(frozen=True)
class Last:
    """The last layers of both, in order (Wang et al. 2020, arXiv:2002.10957: one)."""

    count: int = 1


@dataclass(frozen=True)
class Chosen:
    """These layers, counted from 0: the first of the student's with the first of the teacher's, and so on."""

    student: tuple[int, ...] = ()
    teacher: tuple[int, ...] = ()


LayerMap = Uniform | First | Last | Chosen


def pairs(layers: LayerMap, student: int, teacher: int) -> list[tuple[int, int]]:
    """(The student's layer, the teacher's), counted from 0, of models that are so deep. Raises UsageError."""
    match layers:
        case Uniform():
            if student < 1 or teacher % student:
                raise UsageError(
                    f"layers uniform: the teacher's {teacher} layers are no multiple of the student's {student}; "
                    "use last, first or chosen"
                )
            step = teacher // student
            return [(layer, step * (layer + 1) - 1) for layer in range(student)]
        case First(count) | Last(count):
            if not 1 <= count <= min(student, teacher):
                raise UsageError(
                    f"layers.count is {count}: the student has {student} layers and the teacher {teacher}; use "
                    f"1 to {min(student, teacher)}"
                )
            starts = (student - count, teacher - count) if isinstance(layers, Last) else (0, 0)
            return [(starts[0] + place, starts[1] + place) for place in range(count)]
        case Chosen(own, theirs):
            if len(own) != len(theirs) or not own:
                raise UsageError(
                    f"layers.student names {len(own)} layers and layers.teacher {len(theirs)}: name as many, and "
                    "at least 1"
                )
            for who, found, depth in (("student", own, student), ("teacher", theirs, teacher)):
                if beyond := [layer for layer in found if not 0 <= layer < depth]:
                    raise UsageError(f"layers.{who} names layer {beyond[0]}: it has {depth}, counted from 0")
            return list(zip(own, theirs, strict=True))


# --- what is inside ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HiddenStates:
    """The residual stream behind layers: the mean square of differences (Jiao et al. 2019, arXiv:1909.10351,
    equation 8), or 1 - cosine (DistilBERT, Sanh et al. 2019, arXiv:1910.01108, section 3). A mean over tokens, a
    sum over layers.
    """

    weight: float = 1.0
    layers: LayerMap = Uniform()
    distance: Literal["mse", "cosine"] = "mse"
    projection: Literal["none", "linear"] = "none"
    """What brings the student's features to the teacher's: a matrix is trained with it and thrown away after."""


@dataclass(frozen=True)
class EmbeddingOutput:
    """What goes into the first layer: the mean square of differences (arXiv:1909.10351, equation 9)."""

    weight: float = 1.0
    projection: Literal["none", "linear"] = "none"
    """As in `HiddenStates`."""


@dataclass(frozen=True)
class AttentionScores:
    """Scores before the softmax, of as many heads: the mean square of differences over the keys that a query sees
    (arXiv:1909.10351, equation 7). A mean over heads and tokens, a sum over layers.
    """

    weight: float = 1.0
    layers: LayerMap = Uniform()


@dataclass(frozen=True)
class AttentionMaps:
    """What a token attends to: KL(teacher || student) head by head (Wang et al. 2020, arXiv:2002.10957, section
    3.1), or the square of the distance of both maps, averaged over heads and divided by their lengths (attention
    transfer, Zagoruyko and Komodakis 2016, arXiv:1612.03928, equation 2, of each query's map), where heads may
    differ in number. A mean over heads and tokens, a sum over layers.
    """

    weight: float = 1.0
    layers: LayerMap = Last()
    distance: Literal["kl", "transfer"] = "kl"


@dataclass(frozen=True)
class Relations:
    """KL(teacher || student) of softmax(x x^T / sqrt(features)), x the queries, keys or values of all tokens of a
    document (Wang et al. 2020, arXiv:2002.10957, section 3.2; 2021, arXiv:2012.15828, section 3.1), before
    positions turn them. A mean over relation heads and tokens, a sum over layers.
    """

    of: Literal["queries", "keys", "values"] = "values"
    weight: float = 1.0
    layers: LayerMap = Last()
    relation_heads: int = 0
    """Heads into which both models' features are cut anew, whatever heads they have; 0 is their own."""


Feature = HiddenStates | EmbeddingOutput | AttentionScores | AttentionMaps | Relations


def projects(feature: Feature) -> bool:
    """Whether a matrix is trained with it, and thrown away after."""
    return isinstance(feature, HiddenStates | EmbeddingOutput) and feature.projection == "linear"


def terms(features: tuple[Feature, ...]) -> tuple[str, ...]:
    """The name of each feature's term: its kind, numbered where there are several of one."""
    names = [_name(feature) for feature in features]
    return tuple(
        name if names.count(name) == 1 else f"{name}_{names[:place].count(name) + 1}"
        for place, name in enumerate(names)
    )


def _name(feature: Feature) -> str:
    match feature:
        case HiddenStates():
            return "hidden_states"
        case EmbeddingOutput():
            return "embedding_output"
        case AttentionScores():
            return "attention_scores"
        case AttentionMaps():
            return "attention_maps"
        case Relations(of):
            return f"relations_{of}"
