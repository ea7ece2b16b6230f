"""What can be seen to be wrong with an objective, and with the model that it is for."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlm.config.block import apart
from jaxlm.config.data import BestFit, Data, Labeled, Packing, Pairs
from jaxlm.config.errors import UsageError
from jaxlm.config.model import Decoder, Encoder, EncoderDecoder, Model, NoClassifier
from jaxlm.config.objective import (
    Autoregressive,
    Classification,
    Contrastive,
    Custom,
    FillInTheMiddle,
    Infilling,
    MaskedLm,
    MultiToken,
    NextSentence,
    Objective,
    PrefixLm,
    SpanCorruption,
    Ul2,
    columns,
)
from jaxlm.config.paths import leaves
from jaxlm.config.position import RelativeBias, Shaw, TransformerXl
from jaxlm.config.recurrent import Rwkv4, Rwkv5, Rwkv6, Rwkv7


def objective_problems(objective: Objective, model: Model) -> Iterator[str]:
    """Each with its path and what to do."""
    yield from _fits(objective, model)
    yield from _classifies(objective, model)
    yield from _heads(objective, model)
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
    for path, part in (("", objective), ("masked.", getattr(objective, "masked", None))):
        if isinstance(part, MaskedLm) and part.masked + part.replaced > 1:
            both = f"objective.{path}masked is {part.masked}, objective.{path}replaced {part.replaced}"
            yield f"{both}: together they are at most 1"
    if isinstance(objective, Contrastive):
        if not objective.temperature > 0:
            yield f"objective.temperature is {objective.temperature}: expected a number above 0"
        if objective.positive == "dropout" and not getattr(model, "dropout", 0.0):
            yield "model.dropout is 0: a text and its positive are the same; set it, or objective.positive second"


def data_problems(objective: Objective, data: Data, packing: Packing) -> Iterator[str]:
    """What is wrong with an objective and the data that it is for."""
    name, has = type(objective).__name__, isinstance(data, Labeled | Pairs)
    if columns(objective).labels and not has:
        yield f"data is {type(data).__name__}: {name} needs labels; choose data:labeled or data:pairs"
    if isinstance(objective, NextSentence) and isinstance(data, Labeled) and not data.second:
        yield "data.second is empty: NextSentence needs pairs of texts; name the field of the second, or data:pairs"
    pairs = isinstance(objective, Contrastive) and objective.positive == "second"
    if pairs and isinstance(data, Labeled) and not data.second:
        yield "data.second is empty: name the field of the second text, or set objective.positive dropout"
    if not has:
        return
    if not isinstance(objective, NextSentence | Classification | Contrastive | Custom):
        yield f"data is {type(data).__name__}: {name} makes no use of labels; choose data:corpus"
    if not isinstance(packing, BestFit):
        yield "packing cuts texts in two at the ends of rows, and only one part has the label: use packing:best_fit"


def _classifies(objective: Objective, model: Model) -> Iterator[str]:
    if not isinstance(objective, NextSentence | Classification) or isinstance(model, EncoderDecoder):
        return
    name, classifier = type(objective).__name__, getattr(model, "classifier", None)
    if classifier is None:
        kind = type(model).__name__
        yield f"objective is {name}: a {kind} has no classifier; choose model:encoder or model:decoder"
    elif isinstance(classifier, NoClassifier):
        yield f"model.classifier is NoClassifier: {name} needs one; choose model.classifier:classifier"
    else:
        if classifier.of == "tokens":
            yield f"model.classifier.of is tokens: {name} has one label a text; use first, mean or last"
        if classifier.labels < 2 or (isinstance(objective, NextSentence) and classifier.labels > 2):
            most = "exactly" if isinstance(objective, NextSentence) else "at least"
            yield f"model.classifier.labels is {classifier.labels}: {name} needs {most} 2"


def _fits(objective: Objective, model: Model) -> Iterator[str]:
    name, kind = type(objective).__name__, type(model).__name__
    one = f"an {kind}" if kind[0] == "E" else f"a {kind}"
    match objective, model:
        case ((MaskedLm() | NextSentence()), Decoder() | EncoderDecoder()):
            yield f"objective is {name}: {one}'s causal mask hides what follows a token; choose model:encoder"
        case ((MaskedLm() | NextSentence()), Rwkv4() | Rwkv5() | Rwkv6() | Rwkv7()):
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
