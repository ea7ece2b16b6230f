"""AWQ against its equations in float64 on the activations themselves, and whole models."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Fp8, Integers, Kept, Nf4, Rounded, Rule
from jaxlm.quantize.awq import _errors, awq, awq_scaled, candidates, clipped, linear_errors
from jaxlm.quantize.calibrate import each_layer, reported
from jaxlm.quantize.fold import folded
from jaxlm.quantize.gptq import gptq
from jaxlm.quantize.readers import readers, weights_of, with_weights
from jaxlm.quantize.rounding import round_layers, to_nearest
from jaxlm.quantize.smooth import plant_outliers
from jaxlm.quantize.weight import Quantized
from tests.tiny import CALL, KINDS, random_ids, random_model, tokens

QUIET = {"say": lambda line: None}
FORMAT = Integers(3, symmetric=False, group=16)
HOW = Rounded((Rule(format=FORMAT),))
PLAIN = config.Decoder(
    vocab=64, embed=32, layers=2, block=config.Block(config.Attention(4, 4, 8), config.Gated(48))
)
ROWS = tokens(random_ids(8, 24))


def rounded(matrix: np.ndarray, group: int = 16, bits: int = 3) -> np.ndarray:
    """To the nearest of an affine grid for each group of each output, in float64."""
    w = matrix.reshape(-1, group, matrix.shape[1])
    low, high = np.minimum(w.min(1, keepdims=True), 0), np.maximum(w.max(1, keepdims=True), 0)
    scale = (high - low) / (2**bits - 1)
    zero = np.round(-low / scale)
    return ((np.clip(np.round(w / scale + zero), 0, 2**bits - 1) - zero) * scale).reshape(matrix.shape)


def problem(seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((300, 64)) * rng.lognormal(0, 1, 64)
    return x, rng.standard_normal((64, 20))


def test_the_search_of_one_matrix():
    x, w = problem()
    size, wanted = np.abs(x).mean(axis=0), []
    for exponent in np.arange(21) / 20:
        s = np.maximum(size**exponent, 1e-4)
        s /= np.sqrt(s.max() * s.min())
        wanted.append(np.square((x / s) @ rounded(w * s[:, None]) - x @ w).sum() / len(x))
    gram = jnp.asarray(x.T @ x / len(x), jnp.float32)
    got = linear_errors(jnp.asarray(w, jnp.float32), gram, candidates(jnp.asarray(size, jnp.float32)), FORMAT)
    # A number that lies between two codes goes either way in float32: of thousands, a few.
    np.testing.assert_allclose(got, wanted, rtol=2e-2)
    assert np.median(np.abs(got / np.array(wanted) - 1)) < 1e-4
    best = int(np.argmin(wanted))
    assert 0 < best < 20
    assert int(jnp.argmin(got)) == best
    assert wanted[best] < 0.7 * wanted[0]


def test_the_cut_of_one_matrix():
    """On a symmetric grid: the zero of an affine one is a tie wherever both ends of a range are cut."""
    x, w = problem(1)
    gram = jnp.asarray(x.T @ x / len(x), jnp.float32)
    found = clipped(jnp.asarray(w, jnp.float32), gram, Integers(3, group=16))
    cuts = 0
    for group in range(4):
        part = slice(16 * group, 16 * group + 16)
        for output in range(20):
            column, limits = w[part, output], np.abs(w[part, output]).max() * (1 - np.arange(10) / 20)
            tried = [np.clip(column, -limit, limit) for limit in limits]
            steps = [np.abs(one).max() / 3 for one in tried]
            values = [np.round(one / step) * step for one, step in zip(tried, steps, strict=True)]
            lost = [np.square(x[:, part] @ (one - column)).sum() for one in values]
            got = np.asarray(found[part, output])
            chosen = np.abs(np.array(tried) - got).max(axis=1).argmin()
            np.testing.assert_allclose(got, tried[chosen], rtol=1e-5)
            assert lost[chosen] <= min(lost) * (1 + 1e-3)
            cuts += chosen > 0
    assert 10 < cuts < 80


def test_what_is_not_cut():
    x, w = problem(1)
    gram, w = jnp.asarray(x.T @ x / len(x), jnp.float32), jnp.asarray(w, jnp.float32)
    for format in (Fp8(), Integers(4, group=-1)):
        np.testing.assert_array_equal(clipped(w, gram, format), w)
    assert (clipped(w, gram, Nf4(16)) != w).any()


def test_the_search_is_for_what_comes_out_of_a_branch():
    """The error of each scale is that of the layer with the scale moved into its norm and its weights rounded."""
    model = plant_outliers(random_model(PLAIN), 3, 10.0)

    def treat(place):
        attention, mlp = (one for one in readers(place.layer) if one.branch)
        tried = candidates(jnp.asarray(np.random.default_rng(0).lognormal(0, 1, 32), jnp.float32))[
            jnp.array([0, 9])
        ]
        for reader in (attention, mlp):
            formats = (None, *(FORMAT for _ in reader.weights[1:]))
            got, wanted = _errors(place, reader, tried, formats, 99), np.zeros(2)
            for x, context in zip(place.stream.hidden, place.stream.contexts, strict=True):
                whole = reported(place.layer, x, context, CALL, reader.branch)
                for number in range(2):
                    moved = folded(place, reader, tried[number])
                    new = {name: Quantized.of(weights_of(moved)[name], FORMAT) for name in reader.weights[1:]}
                    out = reported(with_weights(moved, new), x, context, CALL, reader.branch)
                    wanted[number] += np.square(np.asarray(out) - whole)[
                        np.asarray(context.tokens.segments) > 0
                    ].sum()
            np.testing.assert_allclose(got, wanted, rtol=5e-3)
        return place.layer

    rows = tokens(random_ids(8, 24), np.pad(np.ones((8, 20), int), ((0, 0), (0, 4))))
    each_layer(dataclasses.replace(model), rows, CALL, treat)


@pytest.mark.parametrize("kind", ["plain", pytest.param("wired", marks=pytest.mark.nightly)])
def test_scales_change_nothing_by_themselves(kind):
    model = random_model(PLAIN if kind == "plain" else KINDS["wired"])
    model = plant_outliers(model, 3, 10.0)
    scaled = awq_scaled(model, ROWS, CALL, HOW, **QUIET)
    wanted, got = (np.asarray(one(ROWS, CALL).hidden) for one in (model, scaled))
    assert np.abs(got - wanted).max() < 1e-5 * wanted.std()
    moved = [
        np.abs(a.kernel / b.kernel - 1).max() > 0.1
        for a, b in zip(weights_of(scaled.blocks).values(), weights_of(model.blocks).values(), strict=True)
    ]
    assert sum(moved) >= (7 if kind == "plain" else 10)
    halves = zip(scaled.blocks.period, model.blocks.period, strict=True)
    mixed = scaled.replace(blocks=model.blocks.replace(period=tuple(a.replace(mlp=b.mlp) for a, b in halves)))
    off = np.abs(np.asarray(mixed(ROWS, CALL).hidden) - wanted).max() / wanted.std()
    assert off > 1e-3, "negative control"


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (1, 2))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bits", [3, pytest.param(4, marks=pytest.mark.nightly)])
def test_methods_in_order(bits, seed):
    """Each better than rounding to nearest, in every layer and at the end, and both together better than either."""
    model, rows = plant_outliers(random_model(PLAIN, seed), 3, 10.0, seed), tokens(random_ids(8, 24, seed))
    held = tokens(random_ids(4, 24, 100 + seed))
    how = Rounded((Rule(format=dataclasses.replace(FORMAT, bits=bits)),))
    scaled = awq_scaled(model, rows, CALL, how, **QUIET)
    found = {
        "nearest": round_layers(model, rows, CALL, how, to_nearest, **QUIET),
        "gptq": gptq(model, rows, CALL, how, **QUIET),
        "awq": awq(model, rows, CALL, how, **QUIET),
        "awq, gptq": gptq(scaled, rows, CALL, how, **QUIET),
    }
    wanted = np.asarray(model(held, CALL).hidden)
    ends = {name: np.linalg.norm(np.asarray(one(held, CALL).hidden) - wanted) for name, (one, _) in found.items()}
    layers = {name: np.mean([one.error for one in errors]) for name, (_, errors) in found.items()}
    assert layers["awq, gptq"] < min(layers["awq"], layers["gptq"])
    assert max(layers["awq"], layers["gptq"]) < 0.85 * layers["nearest"]
    assert max(ends["awq"], ends["gptq"], ends["awq, gptq"]) < 0.95 * ends["nearest"]


@pytest.mark.nightly
def test_what_keeps_its_scale_is_named_once():
    said = []
    grouped = config.Block(config.Attention(4, 2, 8), config.Plain(48, "gelu"))
    awq_scaled(random_model(dataclasses.replace(PLAIN, block=grouped)), ROWS, CALL, HOW, say=said.append)
    assert [line.split(": ")[-1] for line in said] == [
        "4 heads share 2 heads of values",
        "gelu of a scaled number is not the scaled activation",
    ]


@pytest.mark.nightly
def test_kept_weights_keep_their_product():
    """A rule keeps the query: it reads the norm that takes the scale, and computes the same."""
    how = Rounded((Rule("query", Kept()), Rule(format=FORMAT)))
    model = plant_outliers(random_model(PLAIN), 3, 10.0)
    done, errors = awq(model, ROWS, CALL, how, **QUIET)
    assert not any("query" in one.name for one in errors)
    first, old = (jax.tree.map(lambda leaf: leaf[0], one.blocks.period[0]) for one in (done, model))
    x = model.embedding.kernel[ROWS.ids]
    wanted, got = (
        jnp.einsum("rpe,ehd->rphd", one.attention_norm(x), one.attention.query.kernel) for one in (old, first)
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    assert np.abs(first.attention.query.kernel - old.attention.query.kernel).max() > 0.01


def test_recurrent_models_are_refused():
    with pytest.raises(UsageError, match="transformers' blocks only"):
        awq(random_model(KINDS["rwkv4"]), ROWS, CALL, HOW, **QUIET)
