"""A rotated stream changes every weight and nothing that is computed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.adapters.build import adapted
from jaxlm.config.errors import UsageError
from jaxlm.config.rotation import rotated
from jaxlm.layers.norms import RMSNorm, ZeroCentered
from jaxlm.layers.weights import map_weights, weights_of
from jaxlm.quantize import grid
from jaxlm.quantize.build import quantized
from jaxlm.quantize.methods import choose
from jaxlm.quantize.rotate import moved, orthogonal, rotate
from tests.tiny import CALL, KINDS, random_ids, random_model, tokens

KEY = jax.random.key(7)
ROWS = tokens(random_ids(4, 64))
SIZES = {"vocab": 64, "embed": 24, "layers": 2}
HEADS = config.Attention(heads=4, kv_heads=2, head=8)
TIED = config.Decoder(**SIZES, block=config.Block(HEADS, config.Gated(40)))
BIASED = dataclasses.replace(
    TIED,
    block=config.Pattern(
        (config.Block(dataclasses.replace(HEADS, bias="all"), config.Plain(40, bias="all"), config.Parallel()),),
        prefix=(config.Block(dataclasses.replace(HEADS, bias="qkv", qk_norm=config.EachHead())),),
    ),
    position=config.Learned(80, offset=2),
    head=config.Untied(softcap=5.0, bias="all"),
)
GEMMA = dataclasses.replace(
    TIED,
    embed=32,
    block=config.Block(HEADS, config.Gated(40, "gelu_tanh"), config.ParallelTwoNorms()),
    norm=config.ZeroCentered(),
    embedding=config.Scaled(),
    head=config.Tied(softcap=7.0, scale=0.3),
    classifier=config.Classifier(3, of="last", hidden="none"),
)
MIXED = dataclasses.replace(
    TIED,
    block=config.Block(HEADS, config.Moe(experts=4, top_k=2, width=24, shared=16)),
    position=config.TransformerXl(),
    ahead=1,
    layers=3,
)
SHARED = dataclasses.replace(TIED, block=config.Shared((TIED.block,)), parametrization=config.MuP(12, 4))
FUNCTIONS = {
    "tied": TIED,
    "biased": BIASED,
    "gemma": GEMMA,
    "mixed": MIXED,
    "shared": SHARED,
}
NIGHTLY = [pytest.param(name, marks=pytest.mark.nightly) for name in ("mixed", "shared")]


@functools.cache
def both(name: str):
    model = random_model(FUNCTIONS[name])
    return model, rotate(model, KEY)


@functools.partial(jax.jit, static_argnums=1)
def scores(model, call=CALL):
    return model.logits(model(ROWS, call).hidden, call)


def difference(got, wanted) -> float:
    got, wanted = (np.asarray(one, np.float64) for one in (got, wanted))
    return float(np.abs(got - wanted).max() / max(1.0, wanted.std()))


@pytest.mark.parametrize("features", [24, 32, 9])
def test_orthogonal(features):
    """By its key; a Hadamard matrix has entries of one size."""
    q = orthogonal(features, KEY)
    np.testing.assert_allclose(q @ q.T, np.eye(features), atol=1e-6 if features != 32 else 1e-15)
    assert (np.abs(q - orthogonal(features, KEY)) == 0).all()
    assert np.abs(q - orthogonal(features, jax.random.key(8))).max() > 0.1
    assert np.abs(q).max() < (0.9 if features != 32 else 32**-0.5 + 1e-12)


def test_no_direction_is_preferred():
    """Of evenly distributed matrices the trace is 0 in the mean, with a deviation of 1; of Q alone it is not."""
    keys, limit = jax.random.split(KEY, 300), 4 / 300**0.5
    assert abs(np.mean([np.trace(orthogonal(3, key)) for key in keys])) < limit
    normal = [np.asarray(jax.random.normal(key, (3, 3))) for key in keys]
    assert abs(np.mean([np.trace(np.linalg.qr(one).Q) for one in normal])) > limit


@pytest.mark.parametrize("name", ["tied", "biased", "gemma", *NIGHTLY])
def test_the_same_scores(name):
    """Golden: grouped heads, gated and not, tied and not, biases of writers, one norm for two branches."""
    model, turned = both(name)
    wanted = scores(model)
    assert difference(scores(turned), wanted) < 2e-5
    assert turned.config == rotated(FUNCTIONS[name])
    assert isinstance(turned.config.head, config.Untied)
    like = jax.eval_shape(lambda: random_model(turned.config))
    assert jax.tree.structure(turned) == jax.tree.structure(like)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), turned) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), like
    )


OTHERS = [pytest.param(name, marks=pytest.mark.nightly) for name in ("tied", "gemma")]


@pytest.mark.parametrize("name", ["biased", *OTHERS])
def test_no_weight_can_be_left_out(name):
    """Negative control: of each weight alone that reads or writes the stream, the unrotated one."""
    model, turned = both(name)
    wanted, old, left = scores(model), weights_of(model), 0
    for kept in old:
        if np.array_equal(old[kept].dense(), weights_of(turned)[kept].dense()):
            continue
        left += 1
        half = map_weights(lambda name, weight, kept=kept: old[name] if name == kept else weight, turned)
        assert difference(scores(half), wanted) > 100 * 2e-5 or kept.startswith("classifier"), kept
    assert left >= 7


def test_biases_and_norms():
    """A bias of the stream is turned, one of heads is not; norms only divide."""
    model, turned = both("biased")
    old, new = model.blocks.period[0], turned.blocks.period[0]
    q = orthogonal(24, KEY)
    np.testing.assert_allclose(new.attention.out.bias, np.asarray(old.attention.out.bias) @ q, atol=1e-6)
    np.testing.assert_allclose(new.mlp.down.bias, np.asarray(old.mlp.down.bias) @ q, atol=1e-6)
    np.testing.assert_array_equal(new.attention.query.bias, old.attention.query.bias)
    norms = [one for one in jax.tree.leaves(turned, is_leaf=lambda x: isinstance(x, RMSNorm))]
    norms = [one for one in norms if isinstance(one, RMSNorm) and one.scale.shape[-1] == 24]
    assert len(norms) == 4
    assert all((np.asarray(one.scale) == 1).all() for one in norms)
    centered = both("gemma")[1].blocks.period[0].mlp_norm
    assert isinstance(centered, ZeroCentered)
    assert (np.asarray(centered.scale) == 0).all()


def test_scores_of_labels():
    model, turned = both("gemma")
    labels = [one.classify(one(ROWS, CALL).hidden[:, -1], CALL) for one in (model, turned)]
    assert difference(labels[1], labels[0]) < 2e-5


@pytest.mark.nightly
def test_heads_that_look_further_ahead():
    model, turned = both("mixed")
    further = []
    for one in (model, turned):
        output = one(ROWS, CALL)
        further.append(one.logits(one.further(output.trunk, 0, ROWS, CALL).hidden, CALL))
    assert difference(further[1], further[0]) < 2e-5


def test_bfloat16_stays():
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), random_model(TIED))
    turned = rotate(model, KEY)
    assert {leaf.dtype for leaf in jax.tree.leaves(turned)} == {jnp.dtype(jnp.bfloat16)}
    assert difference(scores(turned), scores(model)) < 0.3


FOUR = config.Integers(4, symmetric=False, group=8)


def on_grid(model):
    """The model with the layers' weights on the grid of 4 bits."""
    rounded = quantized(model, config.Rounded((config.Rule(format=FOUR),)))
    plain = weights_of(rounded)
    return map_weights(
        lambda name, weight: weight.replace(kernel=plain[name].dense()) if "blocks" in name else weight, model
    )


def test_weights_leave_a_planted_grid():
    planted = on_grid(random_model(TIED))
    turned = rotate(planted, KEY)
    assert moved(planted, planted, FOUR) == 0
    assert moved(random_model(TIED), planted, FOUR) < 1e-3, "to the nearest is half a step at most"
    assert moved(planted, turned, FOUR) > 0.85
    kernels = [np.asarray(one.blocks.period[0].mlp.up.kernel[1]) for one in (planted, turned)]
    lost = [np.linalg.norm(grid.rounded(jnp.asarray(k), FOUR) - k) / np.linalg.norm(k) for k in kernels]
    assert lost[0] < 1e-6
    assert lost[1] > 0.04


def test_the_share_that_moved_by_hand():
    """Of one weight of a model a quarter, by just more than half a step of its own group, and the rest by less."""
    planted = on_grid(random_model(TIED))
    up = planted.blocks.period[0].mlp.up
    first = np.asarray(up.kernel[0])
    step = np.repeat(np.asarray(grid.fit(up.kernel[0], FOUR).scale), 8, axis=0)
    share = np.where(np.arange(24)[:, None] < 6, 0.51, 0.49)
    other = up.replace(kernel=up.kernel.at[0].set(first + share * step))
    changed = map_weights(lambda name, weight: other if name.endswith("mlp.up") else weight, planted)
    whole = sum(weight.dense().size for name, weight in weights_of(planted).items() if "blocks" in name)
    assert moved(planted, changed, FOUR) == pytest.approx(first.size / 4 / whole, rel=1e-9)


FORMAT = config.Rule(format=FOUR)


@pytest.mark.parametrize(
    "how",
    [
        config.Rounded((FORMAT,), method=config.Nearest(), rotation=config.Rotated()),
        config.Rounded((FORMAT,), method=config.Gptq(0.1), rotation=config.Rotated(3), smoothing=config.Smooth()),
        config.Rounded((FORMAT,), method=config.Awq(), rotation=config.Rotated(), activations=config.Dynamic()),
        config.Rounded((config.Rule(format=config.Kept()),), rotation=config.Rotated()),
    ],
    ids=["nearest", "smooth gptq", "awq", "kept"],
)
def test_methods_round_what_is_rotated(how):
    model = random_model(TIED)
    rounded, errors = choose(model, ROWS, CALL, how, say=str)
    wanted = jax.eval_shape(lambda: quantized(random_model(rotated(TIED)), how))
    assert jax.tree.structure(rounded) == jax.tree.structure(wanted)
    assert len(errors) == (0 if isinstance(how.rules[0].format, config.Kept) else 2 * 7)
    off = difference(scores(rounded), scores(model))
    assert off < 2e-5 if not errors else 0.01 < off < 20
    alone, _ = choose(model, ROWS, CALL, dataclasses.replace(how, rotation=config.NoRotation()), say=str)
    assert alone.head is None


def test_what_is_refused():
    def refuses(kind, match):
        with pytest.raises(UsageError, match=match):
            rotate(random_model(kind), KEY)
        with pytest.raises(UsageError, match=match):
            rotated(kind)

    refuses(KINDS["encoder"], "only the stream of a decoder can be rotated, and the model is Encoder")
    refuses(KINDS["rwkv4"], "Rwkv4")
    refuses(dataclasses.replace(TIED, norm=config.LayerNorm()), "model.norm is LayerNorm, which takes the mean")
    for wiring in (config.Sandwich(), config.PostNorm(), config.ResPostNorm(), config.NormedInput()):
        block = dataclasses.replace(TIED.block, wiring=wiring)
        kind = dataclasses.replace(TIED, block=config.Pattern((TIED.block,), suffix=(block,)))
        refuses(kind, f"block.wiring is {type(wiring).__name__}")
    refuses(dataclasses.replace(TIED, embedding=config.Normed()), "embedding is Normed")
    refuses(dataclasses.replace(TIED, position=config.Sinusoidal()), "position is Sinusoidal")
    refuses(dataclasses.replace(TIED, head=config.NoHead()), "head is NoHead")
    refuses(dataclasses.replace(TIED, head=config.Transformed()), "head is Transformed")
    model = random_model(TIED)
    for kind in (config.Lora(rank=2), config.PromptTuning(4)):
        with pytest.raises(UsageError, match=r"plain matrix|trained prompt"):
            rotate(adapted(model, kind, KEY), KEY)
    with pytest.raises(UsageError, match="Quantized, no plain matrix; merge adapters first"):
        rotate(quantized(model, config.Rounded()), KEY)
