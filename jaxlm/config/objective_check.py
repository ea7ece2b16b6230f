"""What can be seen to be wrong with an objective, and with the model that it is for."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlm.config.block import apart
from jaxlm.config.errors import UsageError
from jaxlm.config.model import Decoder, Encoder, EncoderDecoder, Model
from jaxlm.config.objective import (
    Autoregressive,
    Custom,
    FillInTheMiddle,
    Infilling,
    MaskedLm,
    MultiToken,
    Objective,
    PrefixLm,
    SpanCorruption,
    Ul2,
)
from jaxlm.config.paths import leaves
from jaxlm.config.recurrent import Rwkv4, Rwkv5, Rwkv6, Rwkv7


def objective_problems(objective: Objective, model: Model) -> Iterator[str]:
    """Each with its path and what to do."""
    yield from _fits(objective, model)
    yield from _heads(objective, model)
    for path, leaf in leaves(objective).items():
        field = path.split(".")[-1]
        if field == "rate" and not 0 < leaf.value < 1:
            yield f"objective.{path} is {leaf.value}: expected a share above 0 and below 1"
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
        case (
            (SpanCorruption() | Ul2() | Infilling() | PrefixLm()),
            (Decoder() | Encoder() | Rwkv4() | Rwkv5() | Rwkv6() | Rwkv7()),
        ):
            yield f"objective is {name}: it has two sides, and {one} has one; choose model:encoder_decoder"


def _heads(objective: Objective, model: Model) -> Iterator[str]:
    """Heads that look further ahead need an objective that trains them, and it needs them."""
    name, kind, ahead = type(objective).__name__, type(model).__name__, getattr(model, "ahead", 0)
    match objective:
        case MultiToken() if not isinstance(model, Decoder):
            one = f"an {kind}" if kind[0] == "E" else f"a {kind}"
            yield f"objective is {name}: {one} has no heads that look further ahead; choose model:decoder"
        case MultiToken() if not ahead:
            yield f"model.ahead is 0: {name} has no further heads to train; use 3, or objective:autoregressive"
        case MultiToken(coefficient=coefficient) if not coefficient > 0:
            yield f"objective.coefficient is {coefficient}: the heads of model.ahead would learn nothing"
        case MultiToken() | Custom():
            pass
        case _ if ahead:
            yield f"model.ahead is {ahead}: {name} trains none of these heads; use 0, or objective:multi_token"
    if ahead:
        try:
            apart(model.block, model.layers)
        except UsageError as error:
            yield str(error)
