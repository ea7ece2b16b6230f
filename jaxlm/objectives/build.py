"""From a config to an objective."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.model import Model
from jaxlm.config.objective import Objective as Config
from jaxlm.config.special import Special
from jaxlm.objectives import fill_in_the_middle
from jaxlm.objectives.auxiliary import NONE, Auxiliary, auxiliary
from jaxlm.objectives.classification import Classification, NextSentence
from jaxlm.objectives.contrastive import Contrastive
from jaxlm.objectives.fill_in_the_middle import FillInTheMiddle
from jaxlm.objectives.masked_lm import Masking, masking
from jaxlm.objectives.multi_token import MultiToken
from jaxlm.objectives.objective import Objective
from jaxlm.objectives.prediction import Prediction
from jaxlm.objectives.prefix import Prefix
from jaxlm.objectives.replaced_token import ReplacedTokens
from jaxlm.objectives.two_sided import Denoising, Infilling


def no_tokenizer() -> Special:
    """Of an experiment without one: raises UsageError."""
    raise UsageError("this objective needs a tokenizer's special tokens, and there is no tokenizer")


def build(objective: Config, model: Model, special: Callable[[], Special] = no_tokenizer) -> Objective:
    """The objective that a config names, with the terms that the model's layers add to it.

    `special` gives the tokenizer's special tokens, and is asked by those that need any. A custom objective is taken
    as it is: what a mixture of experts returns in `Output.terms` is its own to use.
    Raises UsageError when it cannot be imported, and for special tokens that are missing.
    """
    more = auxiliary(model)
    match objective:
        case config.Autoregressive(z_loss, chunks):
            return Prediction(z_loss, chunks, more)
        case config.MaskedLm(chunks=chunks):
            return Prediction(0.0, chunks, more, masking(objective, special()), "masked_lm", ("accuracy",))
        case config.NextSentence(hidden):
            masked = Prediction(0.0, hidden.chunks, more, masking(hidden, special()), "masked_lm", ("accuracy",))
            return NextSentence(masked, _labels(model, special(), NONE, "next_sentence", "next_sentence_accuracy"))
        case config.Classification():
            return _labels(model, special(), more)
        case config.Contrastive():
            if more != NONE:
                raise UsageError("model.block: Contrastive does not balance the experts of a mixture; use others")
            return Contrastive(objective, special())
        case config.ReplacedTokens(hidden, weight):
            found = special()
            corrupt = Masking(hidden, found.mask("replaced_tokens"), found.ids, found.vocab)
            return ReplacedTokens(corrupt, weight, more)
        case config.SpanCorruption(rate, span, sentinels, length, chunks):
            corrupt = _denoising("span_corruption", (config.Denoiser(rate, span),), sentinels, length, special())
            return _two_sided(corrupt, "span_corruption", chunks, model)
        case config.Ul2(denoisers, sentinels, length, chunks):
            return _two_sided(_denoising("ul2", denoisers, sentinels, length, special()), "ul2", chunks, model)
        case config.PrefixLm(chunks=chunks) if isinstance(model, config.Decoder):
            return Prediction(0.0, chunks, more, Prefix(special()), "prefix_lm", ("accuracy",))
        case config.PrefixLm(length, chunks):
            corrupt = _denoising("prefix_lm", (config.Denoiser(0.5, 0.0),), 0, length, special())
            return _two_sided(corrupt, "prefix_lm", chunks, model)
        case config.Infilling(chunks=chunks):
            found = special()
            corrupt = Infilling(objective, found.mask("infilling"), found)
            return _two_sided(corrupt, "infilling", chunks, model)
        case config.FillInTheMiddle(chunks=chunks):
            found = special()
            tokens = found.named(fill_in_the_middle.TOKENS, "fill_in_the_middle")
            return Prediction(0.0, chunks, more, FillInTheMiddle(objective, tokens, found), "fill_in_the_middle")
        case config.MultiToken(coefficient, chunks):
            more = auxiliary(model, model.further)
            return MultiToken(len(model.further), coefficient, Prediction(chunks=chunks, auxiliary=more))
        case config.Custom(path):
            return _custom(path)


def _labels(model: Model, special: Special, more: Auxiliary, *names: str) -> Classification:
    return Classification(special.eos, model.classifier.of, getattr(model, "types", 0), more, *names)


def _two_sided(corrupt: Denoising | Infilling, term: str, chunks: int, model: Model) -> Prediction:
    return Prediction(0.0, chunks, auxiliary(model), corrupt, term, ("accuracy", "left_out"))


def _denoising(
    name: str, denoisers: tuple[config.Denoiser, ...], sentinels: int, length: int, special: Special
) -> Denoising:
    modes = tuple(special.named((one.mode,), name)[0] if one.mode else -1 for one in denoisers)
    return Denoising(denoisers, special.sentinels(sentinels, name), modes, special, length)


def _custom(path: str) -> Objective:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"objective.path={path!r}: {error}; give package.module:name") from error
