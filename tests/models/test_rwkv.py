"""RWKV-5, 6 and 7 against the papers' equations in numpy: whole models, both forms, documents packed and alone."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call
from jaxlm.layers.names import flatten, map_named
from jaxlm.models import build
from jaxlm.parallel.layout import single_device
from tests.models import rwkv_oracles
from tests.tiny import CALL, VOCAB, layout, random_ids, random_model, tokens

SIZES = {"vocab": VOCAB, "embed": 32, "layers": 3, "head_size": 8, "width": 48}
KINDS = {
    5: config.Rwkv5(**SIZES),
    6: config.Rwkv6(**SIZES, mix_rank=3, decay_rank=5),
    7: config.Rwkv7(**SIZES, decay_rank=5, rate_rank=6, value_rank=3, gate_rank=7),
}
LENGTH = 70
"""Two chunks and a part."""
SEED = 1
"""With 0, RWKV-6 has a head that is almost constant at some token: its norm magnifies rounding in both forms."""
WRONG = {
    5: ("mixing.norm.scale", "rates.bonus", "rates.log_decay", "gate_shift.mix", "channel.receptance_shift.mix"),
    6: ("shifts.common.mix", "shifts.narrow.kernel", "shifts.decay.wide.kernel", "decay.wide.kernel", "time.bonus"),
    7: (
        "removal",
        "relaxation",
        "time.bonus",
        "residual.base",
        "rate.wide.kernel",
        "gate.narrow.kernel",
        "decay.base",
    ),
}
"""Leaves of which a twentieth part of every other number is noticed."""


def _moved(leaf):
    return leaf.at[..., ::2].multiply(1.05)


@functools.cache
def compiled(form):
    call = dataclasses.replace(CALL, recurrence=form)
    return jax.jit(lambda model, inputs: model.logits(model(inputs, call).hidden, call))


@functools.cache
def oracle(version, seed, length):
    model = random_model(KINDS[version], SEED)
    ids = random_ids(1, LENGTH, seed)[0, :length]
    return rwkv_oracles.logits(version, flatten(model), model.blocks.places(), 4, ids)


def distance(got, wanted):
    """In units of what is allowed."""
    return float(np.abs(np.asarray(got) - wanted).max() / (2e-5 * max(1.0, wanted.std())))


@pytest.mark.parametrize("form", ["scan", "chunked"])
@pytest.mark.parametrize("version", KINDS)
def test_the_papers_equations(version, form):
    wanted = oracle(version, 0, LENGTH)
    assert wanted.std() > 0.5
    got = compiled(form)(random_model(KINDS[version], SEED), tokens(random_ids(1, LENGTH)))
    assert distance(got[0], wanted) < 1


@pytest.mark.parametrize("version", KINDS)
def test_every_part_is_noticed(version):
    model, inputs = random_model(KINDS[version], SEED), tokens(random_ids(1, LENGTH))
    for part in WRONG[version]:
        changed = map_named(lambda name, leaf, p=part: _moved(leaf) if name.endswith(p) else leaf, model)
        error = distance(compiled("chunked")(changed, inputs)[0], oracle(version, 0, LENGTH))
        assert error > 100, f"{part}: {error:.0f}"


def test_twice_the_removal():
    """A state that changes its sign."""
    model = random_model(dataclasses.replace(KINDS[7], removal=2.0), SEED)
    ids = random_ids(1, LENGTH)
    wanted = rwkv_oracles.logits(7, flatten(model), model.blocks.places(), 4, ids[0], removal=2.0)
    assert distance(compiled("chunked")(model, tokens(ids))[0], wanted) < 1
    assert distance(oracle(7, 0, LENGTH), wanted) > 100


@pytest.mark.parametrize("version", KINDS)
def test_documents_within_a_chunk(version):
    """Three documents and padding in one row, each as it is alone."""
    lengths, ids = (19, 3, 40), np.zeros((1, LENGTH), int)
    segments, begin = np.zeros((1, LENGTH), int), 0
    for number, length in enumerate(lengths):
        ids[0, begin : begin + length] = random_ids(1, LENGTH, number)[0, :length]
        segments[0, begin : begin + length] = number + 1
        begin += length
    got, begin = compiled("chunked")(random_model(KINDS[version], SEED), tokens(ids, segments))[0], 0
    for number, length in enumerate(lengths):
        assert distance(got[begin : begin + length], oracle(version, number, length)) < 1
        begin += length


@functools.cache
def decoding(kind):
    """Logits and cache of more tokens, in the form that their number asks for."""
    model = random_model(kind, SEED)

    def run(inputs, cache):
        output = model(inputs, CALL, cache=cache)
        return model.logits(output.hidden, CALL), output.cache

    return model, jax.jit(run)


@pytest.mark.parametrize("version", [*(pytest.param(v, marks=pytest.mark.nightly) for v in (4, 6)), 7])
def test_padding_anywhere_is_passed_over(version):
    """A prompt padded on the left, in chunks; then some with padding in front, between and alone; then a token."""
    kind = KINDS.get(version, config.Rwkv4(VOCAB, 32, 3, 48))
    model, run = decoding(kind)
    calls = ([0] * 20 + [1] * 40, [0, 0, 1, 0, 1, 1], [0, 0], [1])
    ids = random_ids(1, 44)
    wanted = np.asarray(compiled("scan")(model, tokens(ids)))[0]
    cache, got, read = model.empty_cache(1, 64, CALL), [], 0
    for real in calls:
        real = np.array([real])
        new = np.where(real > 0, ids[0, np.minimum(read + np.cumsum(real) - 1, 43)], 9)
        logits, cache = run(tokens(new, real), cache)
        got.append(np.asarray(logits)[real > 0])
        read += real.sum()
    assert read == cache.lengths[0] == 44
    assert distance(np.concatenate(got), wanted) < 1
    # the control: padding that is read as a token
    whole = np.where(np.array(calls[0]) > 0, ids[0, np.maximum(np.cumsum(calls[0]) - 1, 0)], 9)[None]
    assert distance(np.asarray(compiled("scan")(model, tokens(whole)))[0, 20:], wanted[:40]) > 100


@pytest.mark.parametrize("version", [4, *KINDS])
def test_layers_begin_as_the_identity(version):
    """Zero matrices lead back to the stream, and what is spread over features lies in order (the released code)."""
    kind = KINDS.get(version, config.Rwkv4(VOCAB, 32, 3, 48))
    model = jax.jit(lambda: build(kind, jax.random.key(0)))()
    call = dataclasses.replace(CALL, taps=("attention", "mlp"))
    taps = jax.jit(lambda m, t: m(t, call).taps)(model, tokens(random_ids(2, 8)))
    assert all((np.asarray(tap) == 0).all() for tap in taps.values())
    flat = flatten(model)
    path = "blocks.period.0."
    decay = {4: "decay.log_decay", 5: "time.rates.log_decay", 6: "time.decay.base", 7: "time.decay.base"}[version]
    speeds = np.asarray(flat[path + decay])
    assert (speeds[:, -1] > speeds[:, 0] + 2).all()
    assert np.abs(speeds[0] - speeds[-1]).max() > 0.1, "every layer has its own"


def test_heads_must_fill_the_features():
    for kind in KINDS.values():
        with pytest.raises(UsageError, match=r"model.embed is 36: heads of model.head_size = 8"):
            jax.eval_shape(lambda k=kind: build(dataclasses.replace(k, embed=36), jax.random.key(0)))


def test_stages_do_not_hand_on_values():
    where, model = layout(pipeline=2), random_model(KINDS[7], SEED)
    inputs, whole = tokens(np.ones((2, 4), int)), PartitionSpec()
    run = where.spmd(lambda x: x + model(inputs, Call(where)).hidden[0, 0, 0], whole, whole)
    with pytest.raises(UsageError, match=r"where\.mesh\.pipeline: every layer of rwkv7"):
        run(np.zeros(8))


def test_calls_are_static():
    assert hash(Call(single_device(), recurrence="scan")) != hash(Call(single_device(), recurrence="chunked"))
