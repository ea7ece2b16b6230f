"""What can be seen to be wrong with an objective, and with the model that it is for."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlm.config.block import Moe, blocks
from jaxlm.config.head import NoHead
from jaxlm.config.model import (
    Classifier,
    Decoder,
    Encoder,
    EncoderDecoder,
    Generator,
    Model,
    Unchanged,
    generating,
)
from jaxlm.config.objective import (
    Autoregressive,
    Custom,
    FillInTheMiddle,
    Infilling,
    MaskedLm,
    Objective,
    PrefixLm,
    ReplacedTokens,
    SpanCorruption,
    Ul2,
)
from jaxlm.config.paths import leaves
from jaxlm.config.recurrent import Rwkv4, Rwkv5, Rwkv6, Rwkv7


def objective_problems(objective: Objective, model: Model) -> Iterator[str]:
    """Each with its path and what to do."""
    yield from _fits(objective, model)
    for path, leaf in leaves(objective).items():
        field = path.split(".")[-1]
        if field == "rate" and not 0 < leaf.value < 1:
            yield f"objective.{path} is {leaf.value}: expected a share above 0 and below 1"
        if field == "span" and leaf.value < 1 and (leaf.value or not isinstance(objective, Ul2)):
            yield f"objective.{path} is {leaf.value}: a span has at least 1 token"
    if isinstance(objective, Ul2) and not sum(one.share for one in objective.denoisers) > 0:
        yield "objective.denoisers: none of them is ever drawn; give one a share above 0"
    of, hidden = "", objective
    if isinstance(objective, ReplacedTokens):
        of, hidden = "hidden.", objective.hidden
    if isinstance(hidden, MaskedLm) and hidden.masked + hidden.replaced > 1:
        both = f"objective.{of}masked is {hidden.masked}, objective.{of}replaced {hidden.replaced}"
        yield f"{both}: together they are at most 1"


def _fits(objective: Objective, model: Model) -> Iterator[str]:
    name, kind = type(objective).__name__, type(model).__name__
    one = f"an {kind}" if kind[0] == "E" else f"a {kind}"
    match objective, model:
        case ReplacedTokens(), Encoder():
            yield from _discriminator(model)
        case _, Encoder(generator=Generator()) if not isinstance(objective, Custom):
            yield f"model.generator is a Generator: {name} does not train it; use no_generator, or replaced_tokens"
        case MaskedLm() | ReplacedTokens(), Decoder() | EncoderDecoder():
            yield f"objective is {name}: {one}'s causal mask hides what follows a token; choose model:encoder"
        case MaskedLm() | ReplacedTokens(), Rwkv4() | Rwkv5() | Rwkv6() | Rwkv7():
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


def _discriminator(model: Encoder) -> Iterator[str]:
    """What keeps an encoder from being the discriminator of ReplacedTokens."""
    if not isinstance(model.generator, Generator):
        yield "objective is ReplacedTokens: nothing replaces tokens; choose model.generator:generator"
    match model.classifier:
        case Classifier(1, "tokens"):
            pass
        case other:
            found = f"{other.labels} of {other.of}" if isinstance(other, Classifier) else "none"
            yield f"model.classifier has labels {found}: ReplacedTokens scores tokens; use labels 1, of tokens"
    if not isinstance(model.head, NoHead):
        yield f"model.head is {type(model.head).__name__}: ReplacedTokens does not train it; use no_head"
    if (generator := generating(model)) is None:
        return
    if isinstance(model.embedding, Unchanged) and generator.embed != model.features:
        yield (
            f"model.embedding is Unchanged: nothing normalizes its {model.features} features before they are "
            f"projected to model.generator.embed = {generator.embed}; use normed, or as many"
        )
    if any(isinstance(one.mlp, Moe) for one in blocks(generator.block, generator.layers)):
        yield "model.generator.block has experts: only the model's own are kept balanced; use gated or plain"
