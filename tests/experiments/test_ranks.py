"""Adapters of unlike ranks in one program: padding changes nothing, and what they are told apart by is right."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.adapters.build import adapted
from jaxlm.layers.names import combine, flatten, map_named, partition
from jaxlm.layers.weights import weights_of
from jaxlm.objectives.build import build as build_objective
from tests.experiments.scripts import load
from tests.tiny import CALL, EMBED, VOCAB, packed_batch, random_model

ranks = load("ranks")
KIND = config.Decoder(
    vocab=VOCAB, embed=EMBED, layers=2, block=config.Block(config.Attention(2, 2, 8), config.Gated(16))
)
STEPS = 3


@functools.cache
def text():
    """Two seeds of three steps, and two batches held out."""
    batches = [packed_batch(KIND, seed=seed) for seed in range(2 * STEPS + 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
    train = jax.tree.map(lambda leaf: leaf[: 2 * STEPS].reshape(2, STEPS, *leaf.shape[1:]), stacked)
    return ranks.Text(train, jax.tree.map(lambda leaf: leaf[2 * STEPS :], stacked))


def trained(arms, rank):
    objective = build_objective(config.Autoregressive(), KIND)
    return ranks.together(random_model(KIND), arms, text(), objective, CALL, rank)


@pytest.mark.parametrize(
    "method", ["lora", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("dora", "vera"))]
)
def test_padding_changes_nothing(method):
    arm = ranks.Arm(method, 4, 1e-2, 1)
    (plain,), (alone,) = trained([arm], 4)
    (small, padded), (_, found) = trained([ranks.Arm(method, 2, 1e-2, 0), arm], 16)
    for name in ("loss", "gradient", "update"):
        assert getattr(found, name) == pytest.approx(getattr(alone, name), rel=2e-5)
    plain, padded, small = flatten(plain), flatten(padded), flatten(small)
    for name, leaf in plain.items():
        both = padded[name]
        kept = both[tuple(slice(0, length) for length in leaf.shape)]
        assert np.abs(kept - leaf).max() <= 1e-5 * np.abs(leaf).max()
        assert np.count_nonzero(both) == np.count_nonzero(kept)
        assert np.count_nonzero(small[name]) <= np.count_nonzero(both)
    moved = flatten(ranks.halves(random_model(KIND), arm, 4)[0])
    assert all(np.abs(leaf - moved[name]).max() > 1e-3 for name, leaf in plain.items())


def widened(small, name, leaf):
    """Of leaves by name one with zeros up to the shape of another."""
    return jnp.pad(small[name], [(0, b - a) for a, b in zip(small[name].shape, leaf.shape, strict=True)])


def test_a_scale_that_is_given_is_that_of_the_adapter():
    """`scaled` and the adapter's own scale make the same weights, and the wrong scale does not."""
    base, rng = random_model(KIND), np.random.default_rng(0)
    for method in ("lora", "rslora", "dora"):
        arm = ranks.Arm(method, 2, 1e-3, 0)
        own, rest = ranks.halves(base, arm, 4)
        model = adapted(base, arm.adapter, jax.random.key(0))
        theirs, frozen = partition(model, ranks.is_trained(arm.adapter))
        drawn = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), theirs)
        wide = map_named(functools.partial(widened, flatten(drawn)), own)
        wanted = weights_of(combine(drawn, frozen))
        for scale, same in ((arm.scale, True), (2 * arm.scale, False)):
            got = weights_of(combine(ranks.scaled(wide, scale), rest))
            error = max(float(jnp.abs(got[name].dense() - wanted[name].dense()).max()) for name in wanted)
            assert (error < 1e-4) == same


def test_the_best_rate_and_the_tables():
    found = {}
    for method in (*ranks.METHODS, ranks.FULL):
        for rank in (1, 4) if method != ranks.FULL else (0,):
            for rate, seed in ((1e-3, 0), (1e-3, 1), (1e-2, 0), (1e-2, 1)):
                loss = 3 + 0.1 * seed + (rate == 1e-3) * 0.2 - 0.05 * (method == "dora") + 1e-4 * seed * rank
                found[ranks.Arm(method, rank, rate, seed)] = ranks.Found(loss, rank * rate, 0.5)
    assert {arm.rate for arm, _ in ranks.best(found, "lora", 4)} == {1e-2}
    base = random_model(KIND)
    sizes = {(arm.method, arm.rank): ranks.size(base, arm) for arm in found}
    lines = ranks.lines(found, sizes, (1, 4))
    assert [line[-1] for line in lines[:5]] == [
        "baseline",
        "inside noise",
        "better",
        "inside noise",
        "inside noise",
    ]
    assert sizes["lora", 4] == 4 * sizes["lora", 1]
    assert sizes["vera", 1] < sizes["lora", 1] < sizes["dora", 1] < sizes["full", 0]
    assert ranks.stable(found, (1, 4), 1e-2)[1][1] == "0.0400"
