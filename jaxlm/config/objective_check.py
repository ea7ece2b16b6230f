"""What can be seen to be wrong with an objective, and with the model that it is for."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlm.config.distillation import (
    Jsd,
    NoResponse,
    OffPolicy,
    OnPolicy,
    PolicyGradient,
    ReverseKl,
    SkewedKl,
    SkewedReverseKl,
    SoftLabels,
)
from jaxlm.config.head import NoHead
from jaxlm.config.model import Decoder, Encoder, EncoderDecoder, Generator, Model
from jaxlm.config.needs import classifier_problems, discriminator_problems, further_problems, prefix_problems
from jaxlm.config.objective import (
    Autoregressive,
    Classification,
    Contrastive,
    Custom,
    Distillation,
    FillInTheMiddle,
    Infilling,
    MaskedLm,
    NextSentence,
    Objective,
    PrefixLm,
    ReplacedTokens,
    SpanCorruption,
    Ul2,
    scores_tokens,
)
from jaxlm.config.paths import leaves
from jaxlm.config.recurrent import Rwkv4, Rwkv5, Rwkv6, Rwkv7


def objective_problems(objective: Objective, model: Model) -> Iterator[str]:
    """Each with its path and what to do."""
    if isinstance(objective, Distillation):
        yield from _taught(objective)
        yield from (
            one.replace("objective.", "objective.base.") for one in objective_problems(objective.base, model)
        )
        return
    yield from _fits(objective, model)
    yield from classifier_problems(objective, model)
    asks = scores_tokens(objective) and not isinstance(objective, ReplacedTokens | Custom)
    alone = not isinstance(getattr(model, "generator", None), Generator)
    if asks and alone and isinstance(getattr(model, "head", None), NoHead):
        name = type(objective).__name__
        yield f"model.head is NoHead: {name} needs scores of tokens; choose another, such as model.head:tied"
    yield from further_problems(objective, model)
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
    for path, part in (("", objective), ("hidden.", getattr(objective, "hidden", None))):
        if isinstance(part, MaskedLm) and part.masked + part.replaced > 1:
            both = f"objective.{path}masked is {part.masked}, objective.{path}replaced {part.replaced}"
            yield f"{both}: together they are at most 1"
    if isinstance(objective, Contrastive):
        if not objective.temperature > 0:
            yield f"objective.temperature is {objective.temperature}: expected a number above 0"
        if objective.of == "first" and not isinstance(model, Encoder | EncoderDecoder):
            yield f"objective.of is first: a {type(model).__name__}'s first token sees no other; use mean or last"
        if objective.positive == "dropout" and not getattr(model, "dropout", 0.0):
            yield "model.dropout is 0: a text and its positive are the same; set it, or objective.positive second"


def _taught(objective: Distillation) -> Iterator[str]:
    """What is wrong with what a student is to learn of a teacher."""
    response = objective.response
    if objective.weight == 0 and not isinstance(response, NoResponse):
        yield "objective.weight is 0: nothing is learned of the response; use no_response, or more than 0"
    if not objective.scores and not objective.features:
        yield "objective.labels is 0, and there is neither a response nor a feature: nothing is learned"
    match response:
        case SoftLabels(temperature) if not temperature > 0:
            yield f"objective.response.temperature is {temperature}: expected a number above 0"
        case Jsd(beta) if not 0 < beta < 1:
            yield (
                f"objective.response.beta is {beta}: expected a share above 0 and below 1; the limits are "
                "forward_kl and reverse_kl"
            )
        case SkewedKl(skew) | SkewedReverseKl(skew) if not 0 < skew < 1:
            yield f"objective.response.skew is {skew}: expected a share above 0 and below 1"
    match objective.policy:
        case OnPolicy(share=share) if not 0 < share <= 1:
            yield f"objective.policy.share is {share}: expected a share above 0 and at most 1"
        case PolicyGradient(mix=mix) if not 0 <= mix < 1:
            yield f"objective.policy.mix is {mix}: expected a share from 0 and below 1"
        case PolicyGradient() if not isinstance(response, ReverseKl):
            yield f"objective.response is {type(response).__name__}: PolicyGradient needs reverse_kl"
    if not isinstance(objective.policy, OffPolicy):
        name = type(objective.policy).__name__
        if objective.labels and isinstance(objective.policy, OnPolicy):
            yield f"objective.labels is {objective.labels}: {name} draws texts that have no labels; use 0"
        if not isinstance(objective.base, Autoregressive):
            kind = type(objective.base).__name__
            yield f"objective.base is {kind}: {name} goes on from the left; use autoregressive"
    if objective.likeliest:
        yield from _written_down(objective)
    for place, feature in enumerate(objective.features):
        if not feature.weight > 0:
            yield f"objective.features.{place}.weight is {feature.weight}: expected a number above 0"


def _written_down(objective: Distillation) -> Iterator[str]:
    """Why a teacher's likeliest tokens cannot be written down before training."""
    asked = f"objective.likeliest is {objective.likeliest}"
    if not isinstance(objective.base, Autoregressive):
        yield f"{asked}: {type(objective.base).__name__} shows a teacher other rows each time; use 0"
    if objective.features:
        yield f"{asked}: objective.features are inside of the teacher, which is not there any more; use 0 or none"
    if not isinstance(objective.policy, OffPolicy):
        yield f"{asked}: nothing was written down of texts that the student is yet to write; use 0, or off_policy"
    if isinstance(objective.response, NoResponse):
        yield f"{asked}, and objective.response asks for no distribution: use 0, or another response"
    temperature = getattr(objective.response, "temperature", 1.0)
    if temperature != 1.0:
        yield (
            f"{asked}, and objective.response.temperature is {temperature}: a part of a distribution cannot be "
            "softened; use 1"
        )


def _fits(objective: Objective, model: Model) -> Iterator[str]:
    name, kind = type(objective).__name__, type(model).__name__
    one = f"an {kind}" if kind[0] == "E" else f"a {kind}"
    match objective, model:
        case ReplacedTokens(), Encoder():
            yield from discriminator_problems(model)
        case _, Encoder(generator=Generator()) if not isinstance(objective, Custom):
            yield f"model.generator is a Generator: {name} does not train it; use no_generator, or replaced_tokens"
        case ((MaskedLm() | NextSentence() | ReplacedTokens()), Decoder() | EncoderDecoder()):
            yield f"objective is {name}: {one}'s causal mask hides what follows a token; choose model:encoder"
        case ((MaskedLm() | NextSentence() | ReplacedTokens()), Rwkv4() | Rwkv5() | Rwkv6() | Rwkv7()):
            yield f"objective is {name}: {one} reads from left to right only; choose model:encoder"
        case ((Autoregressive() | FillInTheMiddle()), Encoder()):
            yield f"model is an Encoder: it sees the tokens that {name} asks for; choose model:decoder"
        case ((Autoregressive() | FillInTheMiddle()), EncoderDecoder()):
            yield (
                f"model is an EncoderDecoder: {name} has nothing for its encoder to read; choose model:decoder, or "
                "objective:span_corruption"
            )
        case ((Classification() | Contrastive()), EncoderDecoder()):
            yield f"objective is {name}: an EncoderDecoder has no vector of a text; choose model:encoder"
        case PrefixLm(), Decoder():
            yield from prefix_problems(objective, model)
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
