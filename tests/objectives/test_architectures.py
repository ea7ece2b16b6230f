"""Every architecture with every objective that it takes: a step whose gradient reaches all that is to be trained.

The properties of these tests are the first table of README's objectives: `experiments/benchmarks/objectives.py`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.objective import columns
from jaxlm.config.objective_check import objective_problems
from jaxlm.layers.contracts import Call
from jaxlm.layers.names import flatten
from jaxlm.models import build as build_model
from jaxlm.objectives.build import build
from jaxlm.parallel.layout import single_device
from tests.objectives import texts
from tests.objectives.texts import EOS, SENTINELS, SPECIAL, VOCAB

CALL = Call(single_device())
SIZES = {"vocab": VOCAB, "embed": 16}
ATTENTION = config.Attention(heads=2, kv_heads=2, head=8)
GATED, BERT = (
    config.Block(ATTENTION, config.Gated(24)),
    config.Block(ATTENTION, config.Plain(24), config.PostNorm()),
)
EXPERTS = config.Block(ATTENTION, config.Moe(width=16, experts=4, top_k=2))
ENCODER = config.Encoder(**SIZES, layers=2, block=BERT, position=config.Learned(96), head=config.Transformed())
RECURRENT = {"vocab": VOCAB, "embed": 16, "layers": 2, "width": 24}
RANKS = {"decay_rank": 4, "rate_rank": 4, "value_rank": 4, "gate_rank": 4}
ARCHITECTURES = {
    "decoder": config.Decoder(**SIZES, layers=2, block=GATED),
    "decoder, experts": config.Decoder(**SIZES, layers=2, block=EXPERTS, head=config.Untied()),
    "encoder (BERT)": dataclasses.replace(ENCODER, types=2, embedding=config.Normed()),
    "encoder (ALBERT)": dataclasses.replace(ENCODER, block=config.Shared((BERT,)), embedding=config.Factorized(8)),
    "encoder (DeBERTa)": dataclasses.replace(ENCODER, position=config.Disentangled(buckets=4, distance=8)),
    "encoder (ModernBERT)": dataclasses.replace(ENCODER, block=GATED, position=config.Rope()),
    "encoder-decoder (T5)": config.EncoderDecoder(
        **SIZES, encoder_layers=1, decoder_layers=1, block=GATED, position=config.RelativeBias()
    ),
    "encoder-decoder (BART)": config.EncoderDecoder(
        **SIZES, encoder_layers=1, decoder_layers=1, block=BERT, position=config.Learned(96)
    ),
    "RWKV-4": config.Rwkv4(**RECURRENT),
    "RWKV-5": config.Rwkv5(**RECURRENT, head_size=8),
    "RWKV-6": config.Rwkv6(**RECURRENT, head_size=8, decay_rank=4, mix_rank=4),
    "RWKV-7": config.Rwkv7(**RECURRENT, head_size=8, **RANKS),
}
PAIR = config.Classifier(2, "mean")
GENERATOR = {
    "head": config.NoHead(),
    "embedding": config.Normed(),
    "classifier": config.Classifier(1, "tokens"),
    "generator": config.Generator(12, 1, BERT),
}
OBJECTIVES = {
    "autoregressive": (config.Autoregressive(), {}),
    "fill_in_the_middle": (config.FillInTheMiddle(0.7), {}),
    "multi_token": (config.MultiToken(), {"ahead": 1}),
    "prefix_lm": (config.PrefixLm(), {}),
    "masked_lm": (config.MaskedLm(0.4), {}),
    "next_sentence": (config.NextSentence(config.MaskedLm(0.4)), {"classifier": PAIR}),
    "replaced_tokens": (config.ReplacedTokens(config.MaskedLm(0.4, 1.0, 0.0)), GENERATOR),
    "span_corruption": (config.SpanCorruption(0.3, 2.0, SENTINELS), {}),
    "ul2": (config.Ul2(sentinels=SENTINELS), {}),
    "infilling": (config.Infilling(permuted=1.0), {}),
    "classification": (config.Classification(), {"classifier": PAIR}),
    "contrastive": (config.Contrastive(most=4, temperature=0.5), {}),
}
"""Name -> (objective, what a model needs for it)."""
UNTRAINED = {"classification": ("head",), "contrastive": ("head",)}
"""Parts of a model that an objective has no use for."""


def model_of(architecture: str, objective: str):
    """None where the one does not take the other."""
    kind, needs = OBJECTIVES[objective]
    model = ARCHITECTURES[architecture]
    fields = {field.name for field in dataclasses.fields(model)}
    if not needs.keys() <= fields or (objective == "contrastive" and "experts" in architecture):
        return None
    if "generator" in needs and isinstance(model.embedding, config.Factorized):
        needs = needs | {"embedding": model.embedding}
    model = dataclasses.replace(model, **needs)
    return None if list(objective_problems(kind, model)) else model


PAIRS = [(a, o) for a in ARCHITECTURES for o in OBJECTIVES if model_of(a, o) is not None]


@functools.cache
def rows():
    """Pairs of texts, each with its columns."""
    draw = np.random.default_rng(0)
    docs = [
        (number, np.r_[one, EOS, one[::-1]]) for number, one in enumerate(texts.documents((9, 7, 12, 5, 10, 8)))
    ]
    found = texts.batch([docs[:3], docs[3:]], 80)
    heads = np.asarray((found.inputs.positions == 0) & (found.inputs.segments > 0))
    labels = np.where(heads, draw.integers(0, 2, heads.shape), -1)
    ends = np.isin(np.asarray(found.inputs.ids), texts.ENDS)
    more = {"labels": jnp.asarray(labels, jnp.int32), "ends": jnp.asarray(ends, jnp.int32)}
    return found.replace(extra=found.extra | more)


def gradient_of(objective, model, batch):
    def loss(model, batch):
        batch = objective.prepare(batch, jax.random.key(0))
        totals, _ = objective.totals(model, batch, jax.random.key(1), CALL, {})
        weights = objective.weights(batch)
        return sum(c * totals[name] / weights[name] for name, c in objective.coefficients.items())

    return jax.jit(jax.value_and_grad(loss))(model, batch)


def test_what_goes_with_what():
    """No architecture is without an objective, and none without an architecture."""
    assert {a for a, _ in PAIRS} == set(ARCHITECTURES)
    assert {o for _, o in PAIRS} == set(OBJECTIVES)
    assert len(PAIRS) == 51


@pytest.mark.nightly
@pytest.mark.parametrize(("architecture", "name"), PAIRS)
def test_every_parameter_is_trained(architecture, name, record_property):
    kind, model = OBJECTIVES[name][0], model_of(architecture, name)
    objective = build(kind, model, lambda: SPECIAL)
    batch = rows()
    if name == "contrastive":  # of all pairs
        batch = batch.replace(extra=batch.extra | {"labels": jnp.minimum(batch.extra["labels"], 0)})
    assert columns(kind).labels <= ("labels" in batch.extra)
    model = build_model(model, jax.random.key(2))
    # What starts at zero hides others from their gradients.
    leaves, tree = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    noisy = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    loss, gradient = gradient_of(objective, jax.tree.unflatten(tree, noisy), batch)
    assert np.isfinite(loss)
    found = {path: np.asarray(leaf) for path, leaf in flatten(gradient).items()}
    assert all(np.isfinite(leaf).all() for leaf in found.values())
    idle = {path for path, leaf in found.items() if not leaf.any()}
    expected = UNTRAINED.get(name, ())
    assert all(path.startswith(expected) for path in idle) if expected else not idle, idle
    record_property("architecture", architecture)
    record_property("objective", name)
