"""Objectives that a model cannot take, and numbers that say nothing, are refused with what to do."""

import dataclasses
from pathlib import Path

import pytest

from jaxlm import config
from jaxlm.config.check import check
from jaxlm.config.errors import UsageError
from jaxlm.config.load import load_experiment
from jaxlm.config.objective import Columns, columns
from tests.base import experiment

SHIPPED = sorted((Path(__file__).parents[2] / "experiments/objectives").glob("*.py"))
TWO_SIDED = config.EncoderDecoder(vocab=4096)
ENCODER = config.Encoder(vocab=4096)
AHEAD = config.Decoder(vocab=4096, ahead=3)
ELECTRA = config.Encoder(
    vocab=4096,
    head=config.NoHead(),
    embedding=config.Normed(),
    classifier=config.Classifier(1, "tokens"),
    generator=config.Generator(),
)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_experiments_pass(path):
    tree = load_experiment(str(path))
    check(tree)
    assert tree.name == path.stem.replace("_", "-")


@pytest.mark.parametrize(
    ("objective", "model", "message"),
    [
        (config.MaskedLm(), None, "objective is MaskedLm: a Decoder's causal mask hides what follows a token"),
        (config.MaskedLm(), TWO_SIDED, "objective is MaskedLm: an EncoderDecoder's causal mask"),
        (config.MaskedLm(), config.Rwkv7(vocab=4096, embed=128), "objective is MaskedLm: a Rwkv7 reads from left"),
        (
            config.FillInTheMiddle(),
            ENCODER,
            "model is an Encoder: it sees the tokens that FillInTheMiddle asks",
        ),
        (config.FillInTheMiddle(), TWO_SIDED, "model is an EncoderDecoder: FillInTheMiddle has nothing for"),
        (config.MultiToken(), None, "model.ahead is 0: MultiToken has no further heads to train; use 3"),
        (config.MultiToken(), ENCODER, "objective is MultiToken: an Encoder has no heads that look further"),
        (config.MultiToken(), TWO_SIDED, "objective is MultiToken: an EncoderDecoder has no heads that look"),
        (config.MultiToken(), config.Rwkv7(vocab=4096, embed=128), "objective is MultiToken: a Rwkv7 has no"),
        (config.MultiToken(0.0), AHEAD, "objective.coefficient is 0.0: the heads of model.ahead would learn"),
        (config.Autoregressive(), AHEAD, "model.ahead is 3: Autoregressive trains none of these heads; use 0"),
        (config.FillInTheMiddle(), AHEAD, "model.ahead is 3: FillInTheMiddle trains none of these heads"),
        (
            config.MultiToken(),
            dataclasses.replace(AHEAD, block=config.Shared((AHEAD.block,))),
            "model.block is Shared: its last layer is all the others too",
        ),
        (
            config.MultiToken(),
            dataclasses.replace(AHEAD, ahead=256),
            "model.ahead is 256: rows of train.length = 256 have no token so far ahead",
        ),
        (config.ReplacedTokens(), None, "objective is ReplacedTokens: a Decoder's causal mask hides what follows"),
        (
            config.ReplacedTokens(),
            config.Rwkv7(vocab=4096, embed=128),
            "objective is ReplacedTokens: a Rwkv7 reads",
        ),
        (
            config.ReplacedTokens(),
            dataclasses.replace(ELECTRA, generator=config.NoGenerator()),
            "objective is ReplacedTokens: nothing replaces tokens; choose model.generator:generator",
        ),
        (
            config.ReplacedTokens(),
            dataclasses.replace(ELECTRA, classifier=config.NoClassifier()),
            "model.classifier has labels none: ReplacedTokens scores tokens; use labels 1, of tokens",
        ),
        (
            config.ReplacedTokens(),
            dataclasses.replace(ELECTRA, classifier=config.Classifier(2, "first")),
            "model.classifier has labels 2 of first",
        ),
        (
            config.ReplacedTokens(),
            dataclasses.replace(ELECTRA, head=config.Tied()),
            "model.head is Tied: ReplacedTokens does not train it; use no_head",
        ),
        (
            config.ReplacedTokens(),
            dataclasses.replace(ELECTRA, embedding=config.Unchanged()),
            "model.embedding is Unchanged: nothing normalizes its 512 features",
        ),
        (
            config.ReplacedTokens(),
            dataclasses.replace(ELECTRA, generator=config.Generator(block=config.Block(mlp=config.Moe()))),
            "model.generator.block has experts",
        ),
        (config.MaskedLm(), ELECTRA, "model.generator is a Generator: MaskedLm does not train it"),
        (config.Autoregressive(), ELECTRA, "model.generator is a Generator: Autoregressive does not train it"),
        (
            config.ReplacedTokens(config.MaskedLm(masked=0.8, replaced=0.3)),
            ELECTRA,
            "objective.hidden.masked is 0.8, objective.hidden.replaced 0.3: together",
        ),
        (config.ReplacedTokens(config.MaskedLm(1.0)), ELECTRA, "objective.hidden.rate is 1.0: expected a share"),
        (config.Ul2(), None, "objective is Ul2: it has two sides, and a Decoder has one"),
        (config.PrefixLm(), ENCODER, "objective is PrefixLm: an Encoder sees what it is asked for"),
        (
            config.PrefixLm(),
            config.Rwkv4(vocab=4096),
            "objective is PrefixLm: a Rwkv4 reads from left to right",
        ),
        (config.PrefixLm(64), None, "objective.target_length is 64: a Decoder writes what follows a prefix in the"),
        (
            config.PrefixLm(),
            config.Decoder(vocab=4096, position=config.RelativeBias()),
            "model.position is RelativeBias: a Decoder's count distances to what stands before a token only",
        ),
        (config.MaskedLm(0.0), ENCODER, "objective.rate is 0.0: expected a share above 0 and below 1"),
        (config.MaskedLm(1.0), ENCODER, "objective.rate is 1.0: expected a share above 0 and below 1"),
        (config.MaskedLm(masked=0.8, replaced=0.3), ENCODER, "objective.masked is 0.8, objective.replaced 0.3"),
        (config.SpanCorruption(span=0.5), TWO_SIDED, "objective.span is 0.5: a span has at least 1 token"),
        (config.SpanCorruption(span=0.0), TWO_SIDED, "objective.span is 0.0: a span has at least 1 token"),
        (config.Infilling(span=0.0), TWO_SIDED, "objective.span is 0.0: a span has at least 1 token"),
        (config.Infilling(permuted=1.5), TWO_SIDED, "objective.permuted is 1.5: expected a share from 0 to 1"),
        (config.Ul2(()), TWO_SIDED, "objective.denoisers: none of them is ever drawn"),
        (config.Ul2((config.Denoiser(share=0.0),)), TWO_SIDED, "objective.denoisers: none of them is ever drawn"),
        (config.Ul2((config.Denoiser(span=0.5),)), TWO_SIDED, "objective.denoisers.0.span is 0.5: a span has"),
    ],
)
def test_refusals(objective, model, message):
    tree = dataclasses.replace(experiment(), objective=objective)
    tree = tree if model is None else dataclasses.replace(tree, model=model)
    with pytest.raises(UsageError) as error:
        check(tree)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_end_is_no_span():
    check(dataclasses.replace(experiment(), model=TWO_SIDED, objective=config.Ul2((config.Denoiser(span=0.0),))))


def test_heads_for_an_objective_of_ones_own():
    check(dataclasses.replace(experiment(), model=AHEAD, objective=config.MultiToken()))
    check(dataclasses.replace(experiment(), model=AHEAD, objective=config.Custom("somewhere:else")))


def test_what_rows_have_to_tell():
    assert columns(config.Autoregressive()) == Columns()
    assert columns(config.MaskedLm(unit="word", copies=3)) == Columns(words=True, copies=3)
    words = config.ReplacedTokens(config.MaskedLm(masked=1.0, replaced=0.0, unit="word"))
    assert columns(words) == Columns(words=True)
    assert columns(config.Infilling()) == Columns()
    assert columns(config.Infilling(permuted=0.5)) == Columns(ends=True)
    whole = config.NextSentence(config.MaskedLm(unit="word", copies=3))
    assert columns(whole) == Columns(words=True, copies=3, labels=True)
    assert columns(config.Contrastive()) == columns(config.Classification()) == Columns(labels=True)
    assert columns(config.Contrastive("dropout")) == Columns()


LABELS = config.Encoder(vocab=4096, classifier=config.Classifier(3))
PAIRS = {"data": config.Pairs(), "packing": config.BestFit()}
HALVES = config.Labeled(("a.jsonl",), second="b")


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (LABELS, {"objective": config.Classification(), **PAIRS}),
        (LABELS, {"objective": config.Classification(), **PAIRS, "data": config.Labeled(("a.jsonl",))}),
        (
            dataclasses.replace(LABELS, classifier=config.Classifier()),
            {"objective": config.NextSentence(), **PAIRS},
        ),
        (ENCODER, {"objective": config.Contrastive(), **PAIRS, "data": HALVES}),
        (dataclasses.replace(ENCODER, dropout=0.1), {"objective": config.Contrastive("dropout")}),
        (config.Rwkv7(vocab=4096, embed=128), {"objective": config.Contrastive(of="last"), **PAIRS}),
        (LABELS, {"objective": config.Custom("a:b"), **PAIRS}),
    ],
)
def test_what_passes(model, changes):
    check(dataclasses.replace(experiment(), model=model, **changes))


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (
            ENCODER,
            {"objective": config.Classification(), **PAIRS},
            "model.classifier is NoClassifier: Classification needs one",
        ),
        (
            config.Rwkv7(vocab=4096, embed=128),
            {"objective": config.Classification(), **PAIRS},
            "objective is Classification: a Rwkv7 has no classifier",
        ),
        (
            dataclasses.replace(LABELS, classifier=config.Classifier(of="tokens")),
            {"objective": config.Classification(), **PAIRS},
            "model.classifier.of is tokens: Classification has one label a text",
        ),
        (
            dataclasses.replace(LABELS, classifier=config.Classifier(1)),
            {"objective": config.Classification(), **PAIRS},
            "model.classifier.labels is 1: Classification needs at least 2",
        ),
        (
            LABELS,
            {"objective": config.NextSentence(), **PAIRS},
            "model.classifier.labels is 3: NextSentence needs exactly 2",
        ),
        (
            dataclasses.replace(LABELS, classifier=config.Classifier()),
            {"objective": config.NextSentence(config.MaskedLm(masked=0.9, replaced=0.2)), **PAIRS},
            "objective.hidden.masked is 0.9, objective.hidden.replaced 0.2: together",
        ),
        (
            config.Decoder(vocab=4096, classifier=config.Classifier()),
            {"objective": config.NextSentence(), **PAIRS},
            "objective is NextSentence: a Decoder's causal mask",
        ),
        (
            TWO_SIDED,
            {"objective": config.Contrastive(), **PAIRS},
            "objective is Contrastive: an EncoderDecoder has no vector of a text",
        ),
        (
            ENCODER,
            {"objective": config.Contrastive(temperature=0.0), **PAIRS},
            "objective.temperature is 0.0: expected a number above 0",
        ),
        (
            config.Decoder(vocab=4096, classifier=config.Classifier()),
            {"objective": config.Classification(), **PAIRS},
            "model.classifier.of is first: a Decoder's first token sees no other; use last or mean",
        ),
        (
            config.Rwkv7(vocab=4096, embed=128),
            {"objective": config.Contrastive(of="first"), **PAIRS},
            "objective.of is first: a Rwkv7's first token sees no other; use mean or last",
        ),
        (
            dataclasses.replace(ENCODER, head=config.NoHead()),
            {"objective": config.MaskedLm()},
            "model.head is NoHead: MaskedLm needs scores of tokens; choose another, such as model.head:tied",
        ),
        (
            ENCODER,
            {"objective": config.Contrastive(), **PAIRS, "data": config.Pairs(copies=0)},
            "data.copies is 0: expected at least 1",
        ),
        (
            config.Decoder(vocab=4096, position=config.Learned(258)),
            {"objective": config.FillInTheMiddle()},
            "model.position.length is 258: FillInTheMiddle adds 3 tokens to a text of train.length = 256",
        ),
        (ENCODER, {"objective": config.Contrastive("dropout")}, "model.dropout is 0: a text and its positive are"),
        (LABELS, {"objective": config.Classification()}, "data is Corpus: Classification needs labels; choose"),
        (
            dataclasses.replace(LABELS, classifier=config.Classifier()),
            {"objective": config.NextSentence(), **PAIRS, "data": config.Labeled(("a.jsonl",))},
            "data.second is empty: NextSentence needs pairs of texts",
        ),
        (
            ENCODER,
            {"objective": config.Contrastive(), **PAIRS, "data": config.Labeled(("a.jsonl",))},
            "data.second is empty: name the field of the second text",
        ),
        (ENCODER, {"objective": config.MaskedLm(), **PAIRS}, "data is Pairs: MaskedLm makes no use of labels"),
        (
            LABELS,
            {"objective": config.Classification(), "data": config.Pairs()},
            "packing cuts texts in two at the ends of rows, and only one part has the label: use packing:best_fit",
        ),
    ],
)
def test_refusals_of_labels(model, changes, message):
    with pytest.raises(UsageError) as error:
        check(dataclasses.replace(experiment(), model=model, **changes))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
