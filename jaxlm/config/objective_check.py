"""What can be seen to be wrong with an objective, and with the model that it is for."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlm.config.model import Decoder, Encoder, EncoderDecoder, Model
from jaxlm.config.objective import (
    Autoregressive,
    FillInTheMiddle,
    Infilling,
    MaskedLm,
    Objective,
    PrefixLm,
    SpanCorruption,
    Ul2,
)
from jaxlm.config.paths import leaves
from jaxlm.config.position import RelativeBias, Shaw, TransformerXl
from jaxlm.config.recurrent import Rwkv4, Rwkv5, Rwkv6, Rwkv7


def objective_problems(objective: Objective, model: Model) -> Iterator[str]:
    """Each with its path and what to do."""
    yield from _fits(objective, model)
    for path, leaf in leaves(objective).items():
        field = path.split(".")[-1]
        if field == "rate" and not 0 < leaf.value < 1:
            yield f"objective.{path} is {leaf.value}: expected a share above 0 and below 1"
        if field == "permuted" and not 0 <= leaf.value <= 1:
            yield f"objective.{path} is {leaf.value}: expected a share from 0 to 1"
        if field == "span" and leaf.value < 1 and (leaf.value or not isinstance(objective, Ul2)):
            yield f"objective.{path} is {leaf.value}: a span has at least 1 token"
    if isinstance(objective, Ul2) and not sum(one.share for one in objective.denoisers) > 0:
        yield "objective.denoisers: none of them is ever drawn; give one a share above 0"
    if isinstance(objective, MaskedLm) and objective.masked + objective.replaced > 1:
        both = f"objective.masked is {objective.masked}, objective.replaced {objective.replaced}"
        yield f"{both}: together they are at most 1"


def _fits(objective: Objective, model: Model) -> Iterator[str]:
    name, kind = type(objective).__name__, type(model).__name__
    one = f"an {kind}" if kind[0] == "E" else f"a {kind}"
    match objective, model:
        case MaskedLm(), Decoder() | EncoderDecoder():
            yield f"objective is {name}: {one}'s causal mask hides what follows a token; choose model:encoder"
        case MaskedLm(), Rwkv4() | Rwkv5() | Rwkv6() | Rwkv7():
            yield f"objective is {name}: {one} reads from left to right only; choose model:encoder"
        case ((Autoregressive() | FillInTheMiddle()), Encoder()):
            yield f"model is an Encoder: it sees the tokens that {name} asks for; choose model:decoder"
        case ((Autoregressive() | FillInTheMiddle()), EncoderDecoder()):
            yield (
                f"model is an EncoderDecoder: {name} has nothing for its encoder to read; choose model:decoder, or "
                "objective:span_corruption"
            )
        case PrefixLm(), Decoder():
            yield from _prefix_of_decoder(objective, model)
        case PrefixLm(), Rwkv4() | Rwkv5() | Rwkv6() | Rwkv7():
            yield (
                f"objective is PrefixLm: {one} reads from left to right only, and sees no prefix from both sides; "
                "choose model:decoder or model:encoder_decoder"
            )
        case PrefixLm(), Encoder():
            yield "objective is PrefixLm: an Encoder sees what it is asked for; choose model:decoder"
        case (
            (SpanCorruption() | Ul2() | Infilling()),
            (Decoder() | Encoder() | Rwkv4() | Rwkv5() | Rwkv6() | Rwkv7()),
        ):
            yield f"objective is {name}: it has two sides, and {one} has one; choose model:encoder_decoder"


def _prefix_of_decoder(objective: PrefixLm, model: Decoder) -> Iterator[str]:
    """What a decoder has no use for, and positions that know one side only."""
    if objective.target_length:
        yield (
            f"objective.target_length is {objective.target_length}: a Decoder writes what follows a prefix in the "
            "same row; use 0"
        )
    if isinstance(model.position, RelativeBias | Shaw | TransformerXl):
        yield (
            f"model.position is {type(model.position).__name__}: a Decoder's count distances to what stands before "
            "a token only, and a prefix is seen from both sides; choose another, such as model.position:rope"
        )
