"""Closed forms of an experiment: parameters and floating-point operations, without building anything.

One product of a vector with a matrix is 2 operations a parameter. Attention over k keys is 2 * k * heads *
head for the scores and as many for the weighted sum. A training step is three forward passes (forward, and
the gradients with respect to inputs and to weights); what rematerialization computes again is not counted, as
it is no useful work.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from jaxlm.config.block import (
    AllHeads,
    Attention,
    Block,
    EachHead,
    Gated,
    LayerNorm,
    Mlp,
    Moe,
    Norm,
    NormedInput,
    OfModel,
    Parallel,
    Pattern,
    Sandwich,
    blocks,
    distinct,
    ends_normed,
)
from jaxlm.config.experiment import Experiment
from jaxlm.config.head import NoHead, Transformed, Untied
from jaxlm.config.model import Classifier, Decoder, Encoder, EncoderDecoder, Factorized, Model, Normed, generating
from jaxlm.config.objective import Contrastive, scores_tokens, target_length
from jaxlm.config.position import Disentangled, Learned, RelativeBias, Shaw, TransformerXl
from jaxlm.config.recurrent import Recurrent, Rwkv4, Rwkv5, Rwkv6, Rwkv7

TRAINING = 3
"""Forward passes that a training step is worth."""


def _attention(a: Attention, model: Model) -> tuple[int, int]:
    """(matrix parameters, biases and scales) of the four projections and the norms of queries and keys."""
    wide, narrow = a.heads * a.head, a.kv_heads * a.head
    vectors = {"none": 0, "qkv": wide + 2 * narrow, "all": wide + 2 * narrow + model.embed}[a.bias]
    match a.qk_norm:
        case EachHead():
            vectors += 2 * _norm(model.norm, a.head)
        case AllHeads():
            vectors += _norm(model.norm, wide + narrow)
    return 2 * model.embed * (wide + narrow), vectors


def _sides(model: Decoder | Encoder | EncoderDecoder) -> list[tuple[int, int, bool]]:
    """(layers, attentions of a layer, whether they are causal) of each half; the second is a cross-attention."""
    if isinstance(model, EncoderDecoder):
        return [(model.encoder_layers, 1, False), (model.decoder_layers, 2, True)]
    return [(model.layers, 1, isinstance(model, Decoder))]


def _further(model: Decoder | Encoder | EncoderDecoder) -> list[Block]:
    """Layers of the heads that predict more than the next token."""
    return model.further if isinstance(model, Decoder) else []


def _relative(a: Attention, model: Model, causal: bool) -> int:
    """Parameters of positions in a layer's self-attention."""
    match model.position if isinstance(a.position, OfModel) else a.position:
        case Shaw():
            return sum(_distances(a, model, causal, None)) * a.head
        case TransformerXl():
            return model.embed * a.kv_heads * a.head + 2 * a.heads * a.head
    return 0


def _distances(a: Attention, model: Model, causal: bool, keys: float | None) -> tuple[float, float]:
    """Vectors of distances that a query of so many keys, or of any number, meets, and that are mixed for it."""
    match model.position if isinstance(a.position, OfModel) else a.position:
        case Shaw(clip, which):
            most = clip + 1 if causal else 2 * clip + 1
            count = most if keys is None else min(most, keys)
            return count, count if which == "keys_and_values" else 0
        case TransformerXl():
            return keys or 0, 0
        case Disentangled(buckets):
            return 4 * buckets, 0  # a query meets as many, and a key
    return 0, 0


def _mlp(m: Mlp, embed: int) -> tuple[int, int]:
    """(matrix parameters, biases); a mixture's router, all its experts and the shared ones."""
    if isinstance(m, Moe):
        return embed * m.experts + 3 * embed * (m.experts * m.width + m.shared), 0
    into = 2 if isinstance(m, Gated) else 1
    return (into + 1) * embed * m.width, (into * m.width + embed if m.bias == "all" else 0)


def _unused(m: Mlp, embed: int) -> int:
    """Matrix parameters that a token does not meet: those of the experts it did not choose."""
    return 3 * embed * (m.experts - m.top_k) * m.width if isinstance(m, Moe) else 0


def hidden(m: Mlp, embed: int) -> tuple[int, int]:
    """Numbers a token leaves in an MLP: (products into hidden layers, hidden features after the activation).

    In a mixture also the router's, and a copy of the token into and out of each chosen expert.
    """
    if isinstance(m, Moe):
        width = m.top_k * m.width + m.shared
        return 2 * width + m.experts + 2 * m.top_k * embed, width
    return (2 if isinstance(m, Gated) else 1) * m.width, m.width


def _mixes(model: Recurrent) -> tuple[tuple[int, int], tuple[int, int]]:
    """(matrix parameters, vectors of `embed` numbers) of all time mixes, and of all channel mixes.

    Vectors are token shifts, decays and bonuses, scale and bias of the heads' norm, and what RWKV-7 scales keys by.
    """
    e, n, channel = model.embed, model.layers, 2 * model.embed * model.width
    match model:
        case Rwkv4():
            return (n * 4 * e * e, n * 5), (n * (e * e + channel), n * 2)
        case Rwkv5():
            return (n * 5 * e * e, n * 8), (n * (e * e + channel), n * 2)
        case Rwkv6():
            rank = 2 * (5 * model.mix_rank + model.decay_rank)
            return (n * (5 * e * e + rank * e), n * 10), (n * (e * e + channel), n * 2)
        case Rwkv7():
            rank = 2 * (model.decay_rank + model.rate_rank + model.gate_rank)
            later = 2 * model.value_rank * e * (n - 1)  # the first layer's values are its own
            return (n * (4 * e * e + rank * e) + later, n * 13 + n - 1), (n * channel, n)


def _recurrence(model: Recurrent) -> float:
    """Operations of a token in all layers' recurrences, token by token: what chunks do beside is no useful work.

    A state of embed * head numbers decays (1 operation each), takes up a key times a value (2) and is read (2); in
    RWKV-7 what a removal key finds is read too (2) and taken out (2). RWKV-4 has a few numbers for each feature.
    """
    match model:
        case Rwkv4():
            return 0.0
        case Rwkv5() | Rwkv6():
            return 5.0 * model.layers * model.embed * model.head_size
        case Rwkv7():
            return 9.0 * model.layers * model.embed * model.head_size


def _norm(norm: Norm, embed: int) -> int:
    return embed * (2 if isinstance(norm, LayerNorm) else 1)


def _norms(block: Block, attentions: int) -> int:
    """Number of norms of a block with as many attentions: the second is a cross-attention."""
    match block.wiring:
        case Parallel():
            return 1
        case NormedInput():
            return attentions
        case Sandwich():
            return 2 * (attentions + 1)
        case _:
            return attentions + 1


def _stack(model: Model) -> Counter:
    """Matrices and vectors of the layers and further heads by component, the norm after the last one included."""
    found: Counter = Counter()
    if isinstance(model, Recurrent):
        (time, vectors), (channel, shifts) = _mixes(model)
        found["time mix"] = time + vectors * model.embed
        found["channel mix"] = channel + shifts * model.embed
        found["norms"] = (2 * model.layers + 2) * _norm(model.norm, model.embed)
        return found
    for layers, attentions, causal in _sides(model):
        for one in distinct(model.block, layers) + _further(model):
            found["attention"] += attentions * sum(_attention(one.attention, model))
            found["attention"] += _relative(one.attention, model, causal)
            found["mlp"] += sum(_mlp(one.mlp, model.embed))
            found["norms"] += _norms(one, attentions) * _norm(model.norm, model.embed)
        found["norms"] += _last_norm(model, layers)
    return found


def _last_norm(model: Decoder | Encoder | EncoderDecoder, layers: int) -> int:
    """Parameters of the norm after so many layers."""
    return 0 if ends_normed(model.block, layers) else _norm(model.norm, model.embed)


def _features(model: Model) -> int:
    """Features of the tables of tokens and positions."""
    return model.features if isinstance(model, Encoder) else model.embed


def _tables(model: Model) -> int:
    """Tables of learned positions."""
    return 2 if isinstance(model, EncoderDecoder) and model.tables == "each" else 1


def _head(model: Model) -> int:
    """Parameters of the head's own."""
    features = _features(model)
    match model.head:
        case Untied(bias=bias):
            return model.vocab * (model.embed + (bias == "all"))
        case Transformed(bias=bias):
            dense = model.embed * features + (features if bias == "all" else 0)
            return dense + _norm(model.norm, features) + model.vocab
        case _:
            return 0


def _classifier(kind: Classifier, embed: int) -> int:
    """Parameters of the matrix to the labels, and of the dense layer before it."""
    return (embed + 1) * (kind.labels + (0 if kind.hidden == "none" else embed))


def parameters(model: Model) -> dict[str, int]:
    """Parameters by component, and their `total`.

    A stack has one norm more than its blocks, or two, or none. A tied head has no parameters of its own.
    """
    features = _features(model)
    found = {"embedding": model.vocab * features}
    match None if isinstance(model, Recurrent) else model.position:
        case Learned(length, offset):
            found["positions"] = _tables(model) * (length + offset) * features
        case Disentangled(buckets):
            found["positions"] = 2 * buckets * model.embed
        case RelativeBias(buckets):
            heads = {
                one.attention.heads for one in every_block(model) if isinstance(one.attention.position, OfModel)
            }
            found["positions"] = len(_sides(model)) * buckets * max(heads, default=0)
    found |= _stack(model)
    if not isinstance(model, Recurrent) and getattr(model.position, "vectors", "") == "normed":
        found["norms"] += _norm(model.norm, model.embed)
    if not isinstance(model, Recurrent):
        match model.embedding:
            case Normed():
                found["norms"] += len(_sides(model)) * _norm(model.norm, model.embed)
            case Factorized():
                found["norms"] += _norm(model.norm, features)
                found["embedding projection"] = (features + 1) * model.embed
    if isinstance(model, Decoder | Encoder) and isinstance(model.classifier, Classifier):
        found["classifier"] = _classifier(model.classifier, model.embed)
    if isinstance(model, Encoder) and model.types:
        found["types"] = model.types * features
    if head := _head(model):
        found["head"] = head
    if own := of_generator(model):
        found["generator"] = sum(own.values())
    return found | {"total": sum(found.values())}


def of_generator(model: Model) -> dict[str, int]:
    """Parameters of a model's generator by component, without those that it shares."""
    if (generator := generating(model)) is None:
        return {}
    shared = {"total", "embedding", "types"} | ({"positions"} if isinstance(generator.position, Learned) else set())
    found = {name: count for name, count in parameters(generator).items() if name not in shared}
    if isinstance(generator.embedding, Normed | Factorized):
        found["norms"] -= _norm(generator.norm, generator.features)
    return found


def experts(model: Model) -> int:
    """Parameters of experts, which the mesh axis of that name spreads over devices."""
    if isinstance(model, Recurrent):
        return 0
    mixtures = [one.mlp for one in own_blocks(model) if isinstance(one.mlp, Moe)]
    return sum(3 * m.experts * model.embed * m.width for m in mixtures)


def staged(model: Model) -> int:
    """Parameters of the layers that the stages of a pipeline share: not of those around a pattern's repeats, nor of
    further heads.
    """
    layers = sum(_stack(model).values())
    if generator := generating(model):
        layers += staged(generator)
    if isinstance(model, Recurrent):
        layers -= 2 * _norm(model.norm, model.embed)  # one of them after the embedding
        first = 1 if isinstance(model, Rwkv7) else 0  # which is not stacked with the others
        alone = sum(_stack(dataclasses.replace(model, layers=1)).values()) - 2 * _norm(model.norm, model.embed)
        return layers - first * alone
    layers -= sum(_last_norm(model, count) for count, _, _ in _sides(model))
    block = model.stacked if isinstance(model, Decoder) else model.block
    alone = [*block.prefix, *block.suffix] if isinstance(block, Pattern) else []
    for _, attentions, causal in _sides(model):
        for one in alone + _further(model):
            layers -= attentions * sum(_attention(one.attention, model)) + sum(_mlp(one.mlp, model.embed))
            layers -= _relative(one.attention, model, causal)
            layers -= _norms(one, attentions) * _norm(model.norm, model.embed)
    return layers


def active_parameters(model: Model) -> int:
    """Parameters that one token meets: all but those of the experts it did not choose."""
    total = parameters(model)["total"]
    if isinstance(model, Recurrent):
        return total
    return total - sum(_unused(one.mlp, model.embed) for one in own_blocks(model))


def every_block(model: Decoder | Encoder | EncoderDecoder) -> list[Block]:
    """The blocks of a transformer in order, an encoder's before its decoder's, further heads last."""
    if isinstance(model, EncoderDecoder):
        return blocks(model.block, model.encoder_layers) + blocks(model.block, model.decoder_layers)
    return blocks(model.block, model.layers) + _further(model)


def own_blocks(model: Decoder | Encoder | EncoderDecoder) -> list[Block]:
    """Those of `every_block` that have parameters of their own."""
    return [one for layers, _, _ in _sides(model) for one in distinct(model.block, layers)] + _further(model)


def _keys(length: int, window: int | None, causal: bool) -> float:
    """Mean number of keys that a query of a full row sees: in the window before it, and unless causal after it."""
    span = min(window or length, length)
    return (1 if causal else 2) * (span - span * span / (2 * length))


def flops_of(experiment: Experiment, teacher: Model | None = None) -> dict[str, float]:
    """`flops_per_token` in an experiment's rows, by what its objective asks of the model; of an encoder-decoder
    tokens are those of the source's rows. A teacher's forward pass is beside the model's own, as `teacher`, and of
    `training`; what a student draws, and projections that are thrown away, do not count.
    """
    length, objective = experiment.train.length, experiment.objective
    found = flops_per_token(experiment.model, length, target_length(objective, length))
    if not scores_tokens(objective):
        found["head"] = 0.0
    passes = 2 if isinstance(objective, Contrastive) and objective.positive == "dropout" else 1
    found = {name: passes * value for name, value in found.items() if name not in ("forward", "training")}
    forward, hers = sum(found.values()), {}
    if teacher is not None:
        one = flops_per_token(teacher, length, target_length(objective, length))
        hers = {"teacher": one["forward"] - (0.0 if scores_tokens(objective) else one["head"])}
    return found | hers | {"forward": forward, "training": TRAINING * forward + sum(hers.values())}


def flops_per_token(model: Model, length: int, targets: int | None = None) -> dict[str, float]:
    """Operations a token in rows of `length`: `projections`, `attention`, `head`, `forward` and `training`.

    The embedding is a lookup, and biases and norms are too few to count. RWKV's attention is its recurrence.
    Sinusoids of distances are projected once for all rows and do not count either; what queries do with distances
    is attention. What a decoder's prefix sees from both sides does not count. An encoder-decoder's token is one of
    the source's with its share of a row of `targets`, by default as many. Of a mixture of experts those count that
    a token chooses: what a capacity leaves empty or drops is not. A classifier of tokens and a generator beside the
    model count as `classifier` and `generator`; a classifier of documents does not count. Heads that look
    further ahead count everywhere, as they do in training.
    """
    written = (targets or length) / length if isinstance(model, EncoderDecoder) else 1.0
    predictions = 1 + getattr(model, "ahead", 0)
    found = {"projections": 0.0, "attention": 0.0, "head": written * predictions * _head_flops(model)}
    if isinstance(model, Recurrent):
        found["projections"] = 2.0 * sum(matrices for matrices, _ in _mixes(model))
        found["attention"] = _recurrence(model)
    else:
        for layers, attentions, causal in _sides(model):
            share = written if causal else 1.0
            for one in blocks(model.block, layers) + _further(model):
                a = one.attention
                matrices = attentions * _attention(a, model)[0] + _mlp(one.mlp, model.embed)[0]
                matrices -= _unused(one.mlp, model.embed)
                # a memory's keys and values are made of each source token
                memory = (attentions - 1) * 2 * model.embed * a.kv_heads * a.head
                found["projections"] += 2 * (share * (matrices - memory) + memory)
                own = _keys(round(share * length), a.window, causal)
                keys = own + (attentions - 1) * length
                each = 2 * keys + sum(_distances(a, model, causal, own))
                found["attention"] += share * 2 * each * a.heads * a.head
        if isinstance(model, Encoder) and isinstance(model.embedding, Factorized):
            found["projections"] += 2 * model.features * model.embed
        match getattr(model, "classifier", None):
            case Classifier(labels, "tokens", hidden):
                found["classifier"] = 2.0 * model.embed * (labels + (0 if hidden == "none" else model.embed))
    if generator := generating(model):
        found["generator"] = flops_per_token(generator, length)["forward"]
    forward = sum(found.values())
    return found | {"forward": forward, "training": TRAINING * forward}


def _head_flops(model: Model) -> float:
    """Operations of a token's logits."""
    features = _features(model)
    match model.head:
        case NoHead():
            return 0.0
        case Transformed():
            return 2.0 * features * (model.embed + model.vocab)
        case _:
            return 2.0 * model.vocab * model.embed
