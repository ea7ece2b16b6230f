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
        (config.PrefixLm(), ENCODER, "objective is PrefixLm: it has two sides, and an Encoder has one"),
        (config.MaskedLm(0.0), ENCODER, "objective.rate is 0.0: expected a share above 0 and below 1"),
        (config.MaskedLm(1.0), ENCODER, "objective.rate is 1.0: expected a share above 0 and below 1"),
        (config.MaskedLm(masked=0.8, replaced=0.3), ENCODER, "objective.masked is 0.8, objective.replaced 0.3"),
        (config.SpanCorruption(span=0.5), TWO_SIDED, "objective.span is 0.5: a span has at least 1 token"),
        (config.SpanCorruption(span=0.0), TWO_SIDED, "objective.span is 0.0: a span has at least 1 token"),
        (config.Infilling(span=0.0), TWO_SIDED, "objective.span is 0.0: a span has at least 1 token"),
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


def test_what_rows_have_to_tell():
    assert columns(config.Autoregressive()) == Columns()
    assert columns(config.MaskedLm(unit="word", copies=3)) == Columns(words=True, copies=3)
    words = config.ReplacedTokens(config.MaskedLm(masked=1.0, replaced=0.0, unit="word"))
    assert columns(words) == Columns(words=True)
