"""Every objective on a mesh and in micro-batches, with dropout, is what it is on one device; its step lowers.

Properties of these tests are in the second table of README's objectives: `experiments/benchmarks/objectives.py`.
"""

import dataclasses

import jax
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.objective import columns
from jaxlm.data import rows as row_data
from jaxlm.data.dataset import in_memory
from jaxlm.layers.names import flatten
from jaxlm.train import feed
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.fingerprint import digest, fingerprint
from jaxlm.train.initial import initial_state
from jaxlm.train.setup import make_setup
from tests.tiny import close
from tests.train.test_lowering import exported
from tests.train.test_meshes import compiled, documents
from tests.train.tiny import experiment

SPECIAL = ("<mask>", "[R]", "[X]", "[S]", "<fim_prefix>", "<fim_middle>", "<fim_suffix>")
BLOCK = config.Block(config.Attention(heads=2, kv_heads=2, head=8), config.Gated(width=24))
SIZES = {"vocab": 288, "embed": 16, "dropout": 0.1}
ENCODER = config.Encoder(**SIZES, layers=2, block=BLOCK, position=config.Rope())
TWO_SIDED = config.EncoderDecoder(**SIZES, encoder_layers=1, decoder_layers=1, block=BLOCK)
ELECTRA = config.Encoder(
    **SIZES,
    layers=2,
    block=BLOCK,
    position=config.Rope(),
    head=config.NoHead(),
    embedding=config.Factorized(8),
    classifier=config.Classifier(1, "tokens", "gelu"),
    generator=config.Generator(12, 2, BLOCK),
)
DECODER = config.Decoder(**SIZES, layers=2, block=BLOCK)
CLASSIFIER = dataclasses.replace(ENCODER, types=2, classifier=config.Classifier())
KINDS = {
    "masked_lm": (config.MaskedLm(), ENCODER),
    "whole_words": (config.MaskedLm(unit="word"), ENCODER),
    "drawn_once": (config.MaskedLm(copies=2), ENCODER),
    "replaced_tokens": (config.ReplacedTokens(), ELECTRA),
    "span_corruption": (config.SpanCorruption(sentinels=8, target_length=16), TWO_SIDED),
    "prefix_lm": (config.PrefixLm(), TWO_SIDED),
    "prefix_decoder": (config.PrefixLm(), DECODER),
    "ul2": (config.Ul2(sentinels=8), TWO_SIDED),
    "infilling": (config.Infilling(), TWO_SIDED),
    "permuted": (config.Infilling(permuted=1.0), TWO_SIDED),
    "fill_in_the_middle": (config.FillInTheMiddle(), DECODER),
    "next_sentence": (config.NextSentence(), CLASSIFIER),
    "classification": (config.Classification(), CLASSIFIER),
    "contrastive": (config.Contrastive(most=4, temperature=0.5), ENCODER),
    "another_dropout": (config.Contrastive("dropout", most=4, temperature=0.5), ENCODER),
    "multi_token": (config.MultiToken(0.5), dataclasses.replace(DECODER, ahead=2)),
}
ONE, SPREAD = (config.Mesh(), 1, 1), (config.Mesh(fsdp=2, tensor=2), 8, 2)
"""Mesh, devices, micro-batches: data 2, fsdp 2 and tensor 2 are the eight."""
WHOLE = ("contrastive", "another_dropout")
"""Those whose batches are not to be split."""
ORDINARY = ("whole_words", "span_corruption", "contrastive")
BEGINS = np.arange(288) % 3 == 0
STEPS = 3


def some(ordinary):
    return [pytest.param(name, marks=() if name in ordinary else pytest.mark.nightly) for name in KINDS]


def tree(name: str, mesh: config.Mesh, micro: int = 1, length: int = 32) -> config.Experiment:
    objective, model = KINDS[name]
    return dataclasses.replace(
        experiment(),
        model=model,
        tokenizer=config.Bytes(SPECIAL, 8),
        objective=objective,
        train=config.Train(batch=16, length=length),
        packing=packing(name),
        where=config.Where(mesh=mesh, micro_batches=1 if name in WHOLE else micro),
    )


def packing(name: str):
    return config.BestFit() if columns(KINDS[name][0]).labels else config.Stream()


def labeled():
    """Pairs of random texts, whole in rows of 32, each with a label."""
    draw = np.random.default_rng(1)
    halves = [[draw.integers(4, 40, n) for n in draw.integers(1, 12, 2)] for _ in range(200)]
    arrays = [np.concatenate([[2], one, [3], two, [3]]) for one, two in halves]
    return in_memory(arrays, bytes=1, vocab=264, pad=0, labels=draw.integers(0, 2, 200))


def rows_of(name: str):
    wanted = columns(KINDS[name][0])
    more = {"copies": wanted.copies} | ({"begins": BEGINS} if wanted.words else {})
    more |= {"ends": BEGINS} if wanted.ends else {}
    data = labeled() if wanted.labels else documents()
    return row_data.training(data, packing(name), batch=16, length=32, seed=0, **more)


def trained(name: str, mesh: config.Mesh, devices: int, micro: int):
    """(Losses of some steps, gradients of the first)."""
    setup = make_setup(tree(name, mesh, micro), jax.devices()[:devices])
    rows, micro = rows_of(name), setup.experiment.where.micro_batches
    step = compiled(setup, micro_batches=micro, observe=lambda _, gradients, __: flatten(gradients))
    state, losses, first = initial_state(setup), [], None
    for index in range(STEPS):
        state, metrics = step(state, feed.global_batch(rows, setup.call.layout, index))
        metrics = jax.device_get(metrics)
        losses.append(float(metrics["loss"]))
        first = first or {leaf: metrics[leaf] for leaf in flatten(state.model)}
    return losses, first


@pytest.mark.parametrize("name", some(ORDINARY))
def test_meshes_and_micro_batches_agree(name, record_property):
    losses, gradients = trained(name, *ONE)
    others, spread = trained(name, *SPREAD)
    np.testing.assert_allclose(others, losses, rtol=2e-6)
    close(spread, gradients)
    record_property("objective", name)
    record_property("meshes", float(np.max(np.abs(np.array(others) / losses - 1))))


@pytest.mark.parametrize("name", some(("contrastive",)))
def test_resumes_bit_for_bit(name, tmp_path, record_property):
    """Four steps are two, a checkpoint, and two: every bit of the state."""
    setup, rows = make_setup(tree(name, ONE[0]), jax.devices()[:1]), rows_of(name)
    step = compiled(setup)

    def steps(state, first, last):
        for index in range(first, last):
            state, _ = step(state, feed.global_batch(rows, setup.call.layout, index))
        return state

    whole = digest(fingerprint(steps(initial_state(setup), 0, 4)))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, steps(initial_state(setup), 0, 2), {})
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        at, state, _ = checkpoints.restore(setup.abstract)
    assert at == 2
    assert digest(fingerprint(state)) != whole
    assert digest(fingerprint(steps(state, 2, 4))) == whole
    record_property("objective", name)
    record_property("resumes", "bit for bit")


@pytest.mark.parametrize("start", [None, 0, 3])
def test_targets_begin_with_the_token_of_the_model(start):
    """BOS where it has none; what was BOS stays no word: sources and targets are the same."""
    found = {}
    for begin in (start, None):
        plain = tree("span_corruption", config.Mesh())
        told = dataclasses.replace(plain, model=dataclasses.replace(plain.model, start=begin))
        setup = make_setup(told, jax.devices()[:1])
        rows = row_data.training(documents(), config.Stream(), batch=16, length=32, seed=0)
        batch = feed.global_batch(rows, setup.call.layout, 0)
        found[begin] = jax.jit(setup.objective.prepare)(batch, jax.random.key(0))
    one, plain = found[start], found[None]
    begins = np.asarray(plain.inputs.positions == 0) & np.asarray(plain.inputs.segments > 0)
    assert begins.sum() > 16
    assert set(np.asarray(one.inputs.ids)[begins].tolist()) == {2 if start is None else start}
    rest = [(batch.targets, batch.source.ids, np.where(begins, 0, batch.inputs.ids)) for batch in (one, plain)]
    jax.tree.map(np.testing.assert_array_equal, *rest)


@pytest.mark.parametrize("name", ["span_corruption", "multi_token"])
def test_a_row_must_be_whole_on_a_device(name):
    with pytest.raises(
        UsageError, match=r"where\.mesh\.context=2: .* needs each row whole on a device: .*; use context 1"
    ):
        make_setup(tree(name, config.Mesh(context=2)), jax.devices()[:2])


@pytest.mark.nightly
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("name", KINDS)
def test_the_step_lowers(name, platform, monkeypatch, record_property):
    wanted = dataclasses.replace(tree(name, SPREAD[0], length=256), precision="bfloat16")
    assert "reduce_scatter" in exported(wanted, platform, monkeypatch)
    record_property("objective", name)
    record_property("lowers", platform)
