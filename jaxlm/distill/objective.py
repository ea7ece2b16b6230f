"""The objective of a student: labels, a teacher's distributions, and what is inside of the teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxlm.config.distillation import (
    LIKELY,
    Feature,
    NoResponse,
    OffPolicy,
    Policy,
    PolicyGradient,
    Response,
    SoftLabels,
    terms,
)
from jaxlm.config.errors import UsageError
from jaxlm.config.head import NoHead
from jaxlm.config.model import Model as Config
from jaxlm.distill import feature
from jaxlm.distill.policy import rollout
from jaxlm.distill.response import (
    divergence,
    divergence_of_labels,
    divergence_of_likeliest,
    shared_vocabulary,
)
from jaxlm.layers.contracts import Batch, Call, Model, Output
from jaxlm.layers.logprob import log_probability
from jaxlm.layers.numbers import matters
from jaxlm.objectives.chunks import sums_by_chunk
from jaxlm.objectives.classification import Classification
from jaxlm.objectives.objective import Objective, Sums
from jaxlm.objectives.prediction import Prediction

TEACHER = "teacher"
"""The role of the teacher among frozen models."""
DIVERGENCE = "divergence"
"""The term of the response."""
RETURNS = "returns"
"""The term of what a token's choice leads to."""


@dataclass(frozen=True)
class Distillation:
    """labels * the terms of `base` + weight * the divergence from the teacher + those of features.

    Each is a mean: the divergence over targets (or tokens, or texts), features over tokens. The teacher is
    `frozen["teacher"]`, a whole model that reads the same rows, without dropout and without a gradient; or what it
    says was written down before. Logits of both models are made of the same chunks of positions and never exist
    whole.
    """

    base: Prediction | Classification
    response: Response = SoftLabels()
    labels: float = 0.5
    weight: float = 0.5
    at: Literal["targets", "tokens"] = "targets"
    features: tuple[Feature, ...] = ()
    policy: Policy = OffPolicy()
    stop: int | None = None
    """The token that ends a text that the student writes."""
    likeliest: int = 0
    """So many of the teacher's likeliest tokens at each place come with the batch, in `extra`, and no teacher."""
    told: bool = False
    """Whether the terms of `base` are measured where the loss has no part of them: see `asked`."""

    @property
    def couples(self) -> Literal["token", "row", "batch"]:
        """As the labels; what relates tokens to each other has them of one row."""
        return "row" if self.base.couples == "token" and self.features else self.base.couples

    @property
    def scores(self) -> bool:
        """Whether models are asked for scores."""
        return self.told or matters(self.labels) or self._responds

    @property
    def _responds(self) -> bool:
        return not isinstance(self.response, NoResponse)

    @property
    def _looks_ahead(self) -> bool:
        return isinstance(self.policy, PolicyGradient)

    @property
    def coefficients(self) -> dict[str, float]:
        """The factor of each term; those of the layers have their own."""
        layers = self.base.auxiliary.coefficients
        own = {name: self.labels * factor for name, factor in self.base.coefficients.items() if name not in layers}
        found = own if self.scores else {}
        found |= {DIVERGENCE: self.weight} if self._responds else {}
        found |= {RETURNS: self.weight} if self._looks_ahead else {}
        return found | layers | dict(zip(terms(self.features), (one.weight for one in self.features), strict=True))

    def rollout(self, model: Model, batch: Batch, key: Key[Array, ""], call: Call, frozen: dict[str, Any]) -> Batch:
        """The rows to learn from, the student's own where `policy` says so. Raises as `rollout`."""
        if isinstance(self.policy, OffPolicy):
            return batch
        labels = matters(self.labels)
        return rollout(self.policy, model, _teacher(frozen), batch, key, call, stop=self.stop, labels=labels)

    def prepare(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """The rows as both models are to see them; texts of the data's own are made up for nothing."""
        batch = self.base.prepare(batch, key)
        if not self._looks_ahead or RETURNS in batch.extra:
            return batch
        ones = jnp.ones_like(batch.weights)
        return batch.replace(extra={**batch.extra, "importance": ones, RETURNS: 0 * ones})

    def weights(self, batch: Batch) -> Sums:
        """What each term's total is divided by, of the global batch."""
        found = self.base.weights(batch.replace(weights=_labeled(batch)))
        tokens = jnp.sum(batch.inputs.segments > 0, dtype=jnp.float32)
        match self.base:
            case Classification(term=term):
                found[DIVERGENCE] = found[term]
            case _:
                found[DIVERGENCE] = found[RETURNS] = jnp.sum(self._where(batch))
        found |= dict.fromkeys(terms(self.features), tokens)
        return {name: found[name] for name in self.coefficients}

    def _where(self, batch: Batch) -> Float[Array, "row pos"]:
        """The weight of each position in the divergence of distributions over tokens."""
        where = batch.weights if self.at == "targets" else (batch.inputs.segments > 0).astype(jnp.float32)
        return where * batch.extra["own"] if "own" in batch.extra else where

    def totals(
        self, model: Model, batch: Batch, key: Key[Array, ""] | None, call: Call, frozen: dict[str, Any]
    ) -> tuple[Sums, Sums]:
        """Sums over the micro-batch. Raises UsageError without a teacher, and for one that does not fit."""
        if self.likeliest:
            ours = self.base.output(model, batch, key, call)
            sums = self.base.beside(ours, batch) | self._tokens(model, None, ours, None, batch, call)
            return sums, {f"tap.{name}": ours.taps[name] for name in call.taps if name in ours.taps}
        teacher, taps = jax.lax.stop_gradient(_teacher(frozen)), feature.taps(self.features)
        inside = dataclasses.replace(call, taps=tuple(dict.fromkeys(call.taps + taps)))
        ours = self.base.output(model, batch, key, inside)
        theirs = self.base.output(teacher, batch, None, dataclasses.replace(call, taps=taps))
        theirs = jax.lax.stop_gradient(theirs)
        sums = self.base.beside(ours, batch)
        match self.base:
            case _ if not self.scores:
                sums = {name: sums[name] for name in self.base.auxiliary.coefficients}
            case Prediction():
                sums |= self._tokens(model, teacher, ours, theirs, batch, call)
            case Classification():
                sums |= self._texts(model, teacher, ours, theirs, batch, call)
        sums |= feature.sums(self.features, model, ours, theirs, batch, call)
        return sums, {f"tap.{name}": ours.taps[name] for name in call.taps if name in ours.taps}

    def _tokens(
        self, model: Model, teacher: Model | None, ours: Output, theirs: Output | None, batch: Batch, call: Call
    ) -> Sums:
        scores = model.scorer(call)
        compared, said = self._compared(model, teacher, theirs, batch, call)

        def terms(
            hidden: Float[Array, "row chunk embed"],
            targets: Int[Array, "row chunk"],
            weights: Float[Array, "row chunk"],
            where: Float[Array, "row chunk"],
            ahead: Float[Array, "row chunk"],
            *said: Array,
        ) -> Sums:
            logits = scores(hidden)
            sums = self.base.of_scores(logits, targets, weights, call)
            if self._responds:
                sums[DIVERGENCE] = jnp.sum(where * compared(logits, *said))
            if self._looks_ahead:
                log_q, _ = log_probability(logits, targets, call.layout)
                sums[RETURNS] = -jnp.sum(where * ahead * log_q)
            return sums

        where, ahead = self._where(batch), jnp.zeros_like(batch.weights)
        if self._looks_ahead:
            where, ahead = where * batch.extra["importance"], batch.extra["returns"]
        aligned = (batch.targets, _labeled(batch), where, ahead, *said)
        measured = tuple(name for name, factor in self.coefficients.items() if not matters(factor))
        return sums_by_chunk(terms, ours.hidden, aligned, self.base.chunks, measured)

    def _compared(
        self, model: Model, teacher: Model | None, theirs: Output | None, batch: Batch, call: Call
    ) -> tuple[Callable[..., Float[Array, "row chunk"]], tuple[Array, ...]]:
        """(Each token's divergence, from the student's logits and what the teacher says; that, of all tokens)."""
        if teacher is None:

            def of_likeliest(logits: Array, likely: Array, tokens: Array) -> Float[Array, "row chunk"]:
                return divergence_of_likeliest(self.response, likely, tokens, logits, call.layout)

            return of_likeliest, tuple(batch.extra[name] for name in LIKELY)
        hers = teacher.scorer(call) if self._responds else None
        vocab = min(model.config.vocab, teacher.config.vocab)

        def of_all(logits: Array, hidden: Float[Array, "row chunk features"]) -> Float[Array, "row chunk"]:
            both = shared_vocabulary(jax.lax.stop_gradient(hers(hidden)), logits, vocab, call.layout)
            return divergence(self.response, *both, call.layout)

        return of_all, (theirs.hidden,)

    def _texts(self, model: Model, teacher: Model, ours: Output, theirs: Output, batch: Batch, call: Call) -> Sums:
        scores = self.base.scores(model, ours, batch, call)
        sums = self.base.of_scores(scores, batch)
        if self._responds:
            hers = jax.lax.stop_gradient(self.base.scores(teacher, theirs, batch, call))
            if hers.shape != scores.shape:
                raise UsageError(
                    f"the teacher scores {hers.shape[-1]} labels and the student {scores.shape[-1]}: set "
                    f"model.classifier.labels to {hers.shape[-1]}"
                )
            each = divergence_of_labels(self.response, hers, scores)
            sums[DIVERGENCE] = jnp.sum(jnp.where(batch.extra["labels"] >= 0, each, 0.0))
        return sums


def _labeled(batch: Batch) -> Float[Array, "row pos"]:
    """The weights of targets that are labels: all, but where some rows are the student's own."""
    return batch.weights * (1 - batch.extra["own"]) if "own" in batch.extra else batch.weights


def asked(objective: Objective, model: Config) -> Objective:
    """An objective as held-out text is asked for it: a student that learns of features alone is asked for labels
    too. They have no part in its loss, but say how good it has become, if it has a head.
    """
    match objective:
        case Distillation(base=Prediction()) if not isinstance(getattr(model, "head", None), NoHead):
            return dataclasses.replace(objective, told=True)
    return objective


def _teacher(frozen: dict[str, Any]) -> Model:
    if TEACHER not in frozen:
        raise UsageError("distillation needs a teacher: a whole model among the frozen ones, by that name")
    return frozen[TEACHER]
