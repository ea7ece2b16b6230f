"""What objectives need of models and of data beyond their kinds."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlm.config.block import Moe, apart, blocks
from jaxlm.config.data import BestFit, Data, Labeled, Packing, Pairs
from jaxlm.config.errors import UsageError
from jaxlm.config.head import NoHead
from jaxlm.config.model import (
    Classifier,
    Decoder,
    Encoder,
    EncoderDecoder,
    Generator,
    Model,
    NoClassifier,
    Unchanged,
    generating,
)
from jaxlm.config.objective import (
    Classification,
    Contrastive,
    Custom,
    MultiToken,
    NextSentence,
    Objective,
    PrefixLm,
    columns,
    on_labels,
)
from jaxlm.config.position import RelativeBias, Shaw, TransformerXl


def data_problems(objective: Objective, data: Data, packing: Packing) -> Iterator[str]:
    """What is wrong with an objective and the data that it is for."""
    objective = on_labels(objective)
    name, has = type(objective).__name__, isinstance(data, Labeled | Pairs)
    if columns(objective).labels and not has:
        yield f"data is {type(data).__name__}: {name} needs labels; choose data:labeled or data:pairs"
    if isinstance(objective, NextSentence) and isinstance(data, Labeled) and not data.second:
        yield "data.second is empty: NextSentence needs pairs of texts; name the field of the second, or data:pairs"
    pairs = isinstance(objective, Contrastive) and objective.positive == "second"
    if pairs and isinstance(data, Labeled) and not data.second:
        yield "data.second is empty: name the field of the second text, or set objective.positive dropout"
    if isinstance(data, Pairs) and data.copies < 1:
        yield f"data.copies is {data.copies}: expected at least 1"
    if not has:
        return
    if not isinstance(objective, NextSentence | Classification | Contrastive | Custom):
        yield f"data is {type(data).__name__}: {name} makes no use of labels; choose data:corpus"
    if not isinstance(packing, BestFit):
        yield "packing cuts texts in two at the ends of rows, and only one part has the label: use packing:best_fit"


def classifier_problems(objective: Objective, model: Model) -> Iterator[str]:
    """Objectives of labels need a classifier of texts."""
    if not isinstance(objective, NextSentence | Classification) or isinstance(model, EncoderDecoder):
        return
    if isinstance(objective, NextSentence) and not isinstance(model, Encoder):
        return  # which has been said
    name, classifier = type(objective).__name__, getattr(model, "classifier", None)
    if classifier is None:
        kind = type(model).__name__
        yield f"objective is {name}: a {kind} has no classifier; choose model:encoder or model:decoder"
    elif isinstance(classifier, NoClassifier):
        yield f"model.classifier is NoClassifier: {name} needs one; choose model.classifier:classifier"
    else:
        if classifier.of == "first" and isinstance(model, Decoder):
            kind = type(model).__name__
            yield f"model.classifier.of is first: a {kind}'s first token sees no other; use last or mean"
        if classifier.of == "tokens":
            yield f"model.classifier.of is tokens: {name} has one label a text; use first, mean or last"
        if classifier.labels < 2 or (isinstance(objective, NextSentence) and classifier.labels > 2):
            most = "exactly" if isinstance(objective, NextSentence) else "at least"
            yield f"model.classifier.labels is {classifier.labels}: {name} needs {most} 2"


def discriminator_problems(model: Encoder) -> Iterator[str]:
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


def further_problems(objective: Objective, model: Model) -> Iterator[str]:
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


def prefix_problems(objective: PrefixLm, model: Decoder) -> Iterator[str]:
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
