"""Scales that move change nothing until numbers are rounded, and then much."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.quantization import Dynamic, Integers, NoActivations, Rounded, Rule, Static
from jaxlm.quantize.gptq import gptq
from jaxlm.quantize.rounding import round_layers, to_nearest
from jaxlm.quantize.smooth import plant_outliers, smooth, smoothing
from tests.tiny import CALL, KINDS, random_ids, random_model, tokens

QUIET = {"say": lambda line: None}
ROWS = tokens(random_ids(8, 24))
SIZES = {"vocab": 64, "embed": 32, "layers": 2}
PLAIN = config.Decoder(**SIZES, block=config.Block(config.Attention(4, 4, 8), config.Gated(48)))
BIASED = config.Decoder(
    **SIZES,
    block=config.Block(config.Attention(4, 2, 8, bias="all"), config.Plain(48, bias="all")),
    norm=config.LayerNorm(),
    position=config.Learned(32),
)
GEMMA = config.Decoder(
    **SIZES,
    block=config.Block(config.Attention(4, 1, 8), config.Gated(48, "gelu_tanh"), config.Sandwich()),
    norm=config.ZeroCentered(),
    embedding=config.Scaled(),
)
MODERN = config.Encoder(
    **SIZES,
    block=config.Pattern(
        (config.Block(config.Attention(4, 4, 8), config.Gated(48, "gelu")),),
        prefix=(config.Block(config.Attention(4, 4, 8), config.Gated(48, "gelu"), config.NormedInput()),),
    ),
    norm=config.Unbiased(),
    position=config.Rope(),
    embedding=config.Normed(),
)
FUNCTIONS = {
    "biased": BIASED,
    "gemma": GEMMA,
    "modern": MODERN,
    "wired": dataclasses.replace(KINDS["wired"], norm=config.RMSNorm()),
}


def hidden(model, rows=ROWS) -> np.ndarray:
    return np.asarray(model(rows, CALL).hidden, np.float64)


def difference(got, wanted) -> float:
    return float(np.abs(got - wanted).max() / wanted.std())


def old_norms(new, old):
    """The new weights behind the norms as they were: what forgetting to divide would be."""
    named = lambda layer, like: dataclasses.replace(  # noqa: E731
        layer, attention_norm=like.attention_norm, mlp_norm=like.mlp_norm
    )
    parts = {
        part: tuple(map(named, getattr(new.blocks, part), getattr(old.blocks, part)))
        for part in ("prefix", "period", "suffix")
    }
    return new.replace(blocks=new.blocks.replace(**parts))


NIGHTLY = [pytest.param(one, marks=pytest.mark.nightly) for one in ("modern", "wired")]


@pytest.mark.parametrize("kind", ["biased", "gemma", *NIGHTLY])
def test_the_same_function(kind):
    """Golden: behind norms with biases, of 1 + scale, around branches, one norm for two branches."""
    model = random_model(FUNCTIONS[kind])
    wanted = hidden(model)
    for changed in (plant_outliers(model, 3, 20.0), smooth(model, ROWS, CALL, alpha=0.6, **QUIET)):
        assert difference(hidden(changed), wanted) < 1e-5
        assert difference(hidden(old_norms(changed, model)), wanted) > 1e-2, "negative control"


def test_equation_4():
    """Of the first layer's query, key and value, by hand from the embedding and the norm."""
    model = plant_outliers(random_model(PLAIN), 2, 10.0)
    first = jax.tree.map(lambda leaf: leaf[0], model.blocks.period[0])
    x = np.abs(first.attention_norm(model.embedding.kernel[ROWS.ids])).reshape(-1, 32).max(axis=0)
    kernels = [getattr(first.attention, name).kernel.reshape(32, -1) for name in ("query", "key", "value")]
    w = np.abs(np.concatenate(kernels, axis=1)).max(axis=1)
    for alpha in (0.0, 0.5, 0.8):
        scale = x**alpha / w ** (1 - alpha)
        changed = smooth(model, ROWS, CALL, alpha=alpha, **QUIET).blocks.period[0]
        np.testing.assert_allclose(changed.attention_norm.scale[0], first.attention_norm.scale / scale, rtol=1e-4)
        np.testing.assert_allclose(
            changed.attention.key.kernel[0], first.attention.key.kernel * scale[:, None, None], rtol=1e-4
        )
    assert np.abs(smoothing(jnp.asarray(x), jnp.asarray(w), 0.0) - 1).max() > 0.1, "alpha = 0 is no identity"


def test_planted_channels_are_outliers():
    model = random_model(PLAIN)
    planted = plant_outliers(model, 2, 50.0, seed=3)
    ratio = np.asarray(planted.blocks.period[0].mlp_norm.scale / model.blocks.period[0].mlp_norm.scale)
    np.testing.assert_allclose(np.sort(ratio, axis=1)[:, -3:], [[1, 50, 50]] * 2, rtol=1e-5)
    assert (np.argsort(ratio[0])[-2:] != np.argsort(ratio[1])[-2:]).any(), "every norm has channels of its own"


def eight(activations, group: int = 0) -> Rounded:
    return Rounded((Rule(format=Integers(8, group=group)),), activations)


def errors(seed: int, how: Rounded, held=None) -> dict[str, float]:
    """Relative errors of hidden states on other rows: without and with outliers, and those smoothed."""
    held = tokens(random_ids(4, 24, 50 + seed))
    model, rows = random_model(PLAIN, seed, 0.3), tokens(random_ids(8, 24, seed))
    planted = plant_outliers(model, 2, 60.0, seed)
    forms = {"clean": model, "planted": planted, "smoothed": smooth(planted, rows, CALL, alpha=0.75, **QUIET)}
    found = {}
    for name, form in forms.items():
        rounded, _ = round_layers(form, rows, CALL, how, to_nearest, **QUIET)
        wanted = hidden(model, held)
        found[name] = float(np.linalg.norm(hidden(rounded, held) - wanted) / np.linalg.norm(wanted))
    return found


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (1, 2))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("activations", [pytest.param(Dynamic(8), marks=pytest.mark.nightly), Static(8)], ids=str)
def test_outliers_and_what_smoothing_makes_of_them(activations, seed):
    found = errors(seed, eight(activations))
    print(found)
    assert found["planted"] > 2.5 * found["clean"]
    assert found["smoothed"] < 0.5 * found["planted"]
    assert found["smoothed"] < 2 * found["clean"]


@pytest.mark.nightly
def test_a_static_range_is_worse_than_one_a_token():
    dynamic, static = (errors(0, eight(one)) for one in (Dynamic(8), Static(8)))
    weights = errors(0, eight(NoActivations()))
    for name in dynamic:
        assert weights[name] < dynamic[name] < static[name]


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(3))
def test_smoothing_then_gptq(seed):
    model, rows = plant_outliers(random_model(PLAIN, seed), 2, 20.0, seed), tokens(random_ids(8, 24, seed))
    how = Rounded((Rule(format=Integers(4, symmetric=False, group=16)),))
    smoothed = smooth(model, rows, CALL, **QUIET)
    _, alone = gptq(model, rows, CALL, how, **QUIET)
    _, both = gptq(smoothed, rows, CALL, how, **QUIET)
    nearest = np.mean([one.nearest for one in alone])
    assert np.mean([one.error for one in both]) < np.mean([one.error for one in alone]) < nearest


def test_what_is_refused():
    def refuses(model, match, **how):
        with pytest.raises(UsageError, match=match):
            smooth(model, ROWS, CALL, **how, **QUIET)

    refuses(random_model(KINDS["rwkv4"]), "transformers' blocks only")
    refuses(random_model(KINDS["encoder"]), "no layer has a norm")
    refuses(random_model(PLAIN), "alpha=1.5: expected 0", alpha=1.5)
    attention = config.Block(config.Attention(4, 4, 8), config.Plain(48))
    distances = config.Encoder(**SIZES, block=attention, position=config.Disentangled(4, 8))
    refuses(random_model(distances), "Disentangled")
