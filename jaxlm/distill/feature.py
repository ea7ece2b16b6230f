"""What is inside of a teacher, for a student to have too: each feature's loss as a sum over tokens.

A token's loss is a mean over its features, its heads and the keys that it sees; padding has none. Where devices
share the heads of a layer, each adds what its own heads make of all tokens that it joins.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.config.distillation import (
    AttentionMaps,
    AttentionScores,
    Chosen,
    EmbeddingOutput,
    Feature,
    HiddenStates,
    LayerMap,
    Relations,
    pairs,
    terms,
)
from jaxlm.config.errors import UsageError
from jaxlm.distill.student import Student
from jaxlm.layers.attention.xla import MASKED
from jaxlm.layers.contracts import Batch, Call, Model, Output
from jaxlm.layers.logprob import log_probabilities
from jaxlm.layers.products import einsum32
from jaxlm.layers.projection import Weight, project
from jaxlm.objectives.objective import Sums
from jaxlm.parallel.layout import Layout

Hidden = Float[Array, "row pos features"]
Scores = Float[Array, "row heads query key"]
EPSILON = 1e-12
"""Added to squares of lengths, which may be zero."""


def taps(features: tuple[Feature, ...]) -> tuple[str, ...]:
    """The activations that they are made of, of both models."""
    return tuple(dict.fromkeys(_tap(feature) for feature in features))


def _tap(feature: Feature) -> str:
    match feature:
        case HiddenStates():
            return "residual"
        case EmbeddingOutput():
            return "embedding"
        case AttentionScores() | AttentionMaps():
            return "scores"
        case Relations(of):
            return of


def sums(
    features: tuple[Feature, ...], model: Model, ours: Output, theirs: Output, batch: Batch, call: Call
) -> Sums:
    """Each feature's term, of what both models returned for the batch; no gradient is meant for `theirs`.

    Raises UsageError for layers, widths or heads that do not fit, and for models that have no such activations.
    """
    found, segments = {}, batch.inputs.segments
    for place, (term, feature) in enumerate(zip(terms(features), features, strict=True)):
        own, hers = (_tapped(feature, one, who) for one, who in ((ours, "student"), (theirs, "teacher")))
        projection = model.projections[place] if isinstance(model, Student) else None
        found[term] = sum(
            _of_layer(feature, own[i], hers[j], segments, projection, call)
            for i, j in pairs(_layers(feature), own.shape[0], hers.shape[0])
        )
    return found


def _layers(feature: Feature) -> LayerMap:
    return Chosen((0,), (0,)) if isinstance(feature, EmbeddingOutput) else feature.layers


def _tapped(feature: Feature, output: Output, who: str) -> Float[Array, "layer *activation"]:
    name = _tap(feature)
    if name not in output.taps:
        raise UsageError(f"{type(feature).__name__}: the {who}'s layers have no {name}; use another feature")
    return output.taps[name]


def _of_layer(
    feature: Feature,
    ours: Float[Array, "row *ours"],
    theirs: Float[Array, "row *theirs"],
    segments: Int[Array, "row pos"],
    projection: Weight | None,
    call: Call,
) -> Float[Array, ""]:
    layout = call.layout
    match feature:
        case HiddenStates(distance=distance):
            each = hidden_distance(_projected(feature, ours, theirs, projection, call), theirs, distance)
            return jnp.sum(_real(segments) * each)
        case EmbeddingOutput():
            each = hidden_distance(_projected(feature, ours, theirs, projection, call), theirs, "mse")
            return jnp.sum(_real(segments) * each)
    joined, heads = layout.enter(segments), layout.parts("heads")
    match feature:
        case AttentionScores():
            _same_heads(feature, ours.shape[1], theirs.shape[1])
            each = score_distance(ours, theirs) / heads
        case AttentionMaps(distance="kl"):
            _same_heads(feature, ours.shape[1], theirs.shape[1])
            each = map_divergence(ours, theirs) / heads
        case AttentionMaps():
            means = (layout.sum(jnp.mean(maps(x), axis=1), "heads") / heads for x in (ours, theirs))
            each = map_distance(*means) / heads
        case Relations(of, relation_heads=count):
            cut = _cut(of, ours, theirs, count, layout)
            each = map_divergence(*(related(x, joined) for x in cut)) / heads
    return jnp.sum(_real(joined) * each)


def _real(segments: Int[Array, "row pos"]) -> Float[Array, "row pos"]:
    return (segments > 0).astype(jnp.float32)


# --- hidden states -----------------------------------------------------------------------------------------


def hidden_distance(ours: Hidden, theirs: Hidden, distance: str) -> Float[Array, "row pos"]:
    """Each token's mean square of differences ("mse"), or 1 - cosine ("cosine"); float32."""
    x, y = ours.astype(jnp.float32), theirs.astype(jnp.float32)
    if distance == "mse":
        return jnp.mean(jnp.square(x - y), axis=-1)
    lengths = (jnp.sum(jnp.square(x), axis=-1) + EPSILON) * (jnp.sum(jnp.square(y), axis=-1) + EPSILON)
    return 1 - jnp.sum(x * y, axis=-1) * jax.lax.rsqrt(lengths)


def _projected(
    feature: HiddenStates | EmbeddingOutput,
    ours: Float[Array, "row pos ours"],
    theirs: Float[Array, "row pos theirs"],
    projection: Weight | None,
    call: Call,
) -> Float[Array, "row pos theirs"]:
    name = type(feature).__name__
    if feature.projection == "linear":
        if projection is None:
            raise UsageError(
                f"{name}: its projection is not there to be trained; make the student with its features"
            )
        return project(projection, ours, "rpe,ef->rpf", call)
    if ours.shape[-1] != theirs.shape[-1]:
        raise UsageError(
            f"{name}: the student has {ours.shape[-1]} features and the teacher {theirs.shape[-1]}; set its "
            "projection to linear"
        )
    return ours


# --- attention ---------------------------------------------------------------------------------------------


def seen(*scores: Scores) -> Array:
    """Where all of them see the key: [row, heads, query, key]."""
    return jnp.all(jnp.stack([x > MASKED / 2 for x in scores]), axis=0)


def score_distance(ours: Scores, theirs: Scores) -> Float[Array, "row query"]:
    """Each query's mean over heads, and over the keys that it sees, of the square of differences of scores."""
    there = seen(ours, theirs)
    squares = jnp.square(jnp.where(there, ours, 0.0) - jnp.where(there, theirs, 0.0))
    return jnp.mean(jnp.sum(squares, axis=-1) / jnp.maximum(jnp.sum(there, axis=-1), 1), axis=1)


def map_divergence(ours: Scores, theirs: Scores) -> Float[Array, "row query"]:
    """Each query's mean over heads of KL(teacher || student) of what the softmax makes of scores, in nats."""
    t, s = log_probabilities(theirs), log_probabilities(ours)
    return jnp.mean(jnp.sum(jnp.exp(t) * (t - s), axis=-1), axis=1)


def maps(scores: Scores) -> Scores:
    """What the softmax makes of scores."""
    return jnp.exp(log_probabilities(scores))


def map_distance(
    ours: Float[Array, "row query key"], theirs: Float[Array, "row query key"]
) -> Float[Array, "row query"]:
    """Each query's square of |ours / |ours| - theirs / |theirs||."""
    x, y = (m * jax.lax.rsqrt(jnp.sum(jnp.square(m), axis=-1, keepdims=True) + EPSILON) for m in (ours, theirs))
    return jnp.sum(jnp.square(x - y), axis=-1)


def _same_heads(feature: Feature, ours: int, theirs: int) -> None:
    if ours != theirs:
        raise UsageError(
            f"{type(feature).__name__}: the student has {ours} heads and the teacher {theirs}; use relations with "
            "relation_heads, or the distance transfer"
        )


# --- relations ---------------------------------------------------------------------------------------------


def related(x: Float[Array, "row pos heads head"], segments: Int[Array, "row pos"]) -> Scores:
    """x x^T / sqrt(head) of the tokens of each segment, `MASKED` between others."""
    with jax.named_scope("attention"):
        scores = einsum32("rqnd,rknd->rnqk", x, x) * x.shape[-1] ** -0.5
    same = (segments[:, :, None] == segments[:, None, :]) & (segments > 0)[:, None, :]
    return jnp.where(same[:, None], scores, MASKED)


def _cut(
    of: str,
    ours: Float[Array, "row pos own own_head"],
    theirs: Float[Array, "row pos hers her_head"],
    count: int,
    layout: Layout,
) -> tuple[Float[Array, "row pos heads ours"], Float[Array, "row pos heads theirs"]]:
    """Both models' features in so many heads, of which a device that shares them holds some."""
    if layout.shards("pos") > 1:
        raise UsageError("where.mesh.context: Relations are of all tokens of a row with each other; use 1")
    if not count:
        _same_heads(Relations(of), ours.shape[2], theirs.shape[2])
        return ours, theirs
    parts, found = layout.parts("heads" if of == "queries" else "kv_heads"), []
    for who, x in (("student", ours), ("teacher", theirs)):
        features = x.shape[2] * x.shape[3]
        if count % parts or features % (count // parts):
            raise UsageError(
                f"relation_heads is {count}: it must divide the {features * parts} features of the {who}'s {of}, "
                f"and be a multiple of the {parts} devices that share them"
            )
        found.append(x.reshape(*x.shape[:2], count // parts, -1))
    return tuple(found)
