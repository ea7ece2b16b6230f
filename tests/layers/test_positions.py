"""Kinds of positions against transformers and against the papers' formulas."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers import rope
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.initial import Initial
from jaxlm.layers.names import partition
from jaxlm.layers.positions import alibi_slopes, initial_position
from jaxlm.objectives.prediction import Prediction
from jaxlm.train.step import make_gradient
from tests.tiny import (
    CALL,
    GLOBAL,
    KINDS,
    LOCAL,
    SIZES,
    close,
    layout,
    packed_batch,
    random_ids,
    random_model,
    tokens,
)

POSITIONS = np.array([[0, 1, 2, 7, 500], [3, 3, 1000, 0, 64]])


def made(kind):
    return initial_position(kind, 16, Initial(None))


def seen(positions, **how) -> Mask:
    """Of one document a row."""
    return Mask(positions, positions, jnp.ones_like(positions), jnp.ones_like(positions), **how)


# --- rope in rows longer than the model was trained on -----------------------------------------------------

SCALINGS = [
    (config.Unscaled(), {"rope_type": "default"}),
    (config.Interpolated(4.0), {"rope_type": "linear", "factor": 4.0}),
    (config.Yarn(4.0, 512), {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}),
    (
        config.Yarn(16.0, 64, fast=16.0, slow=2.0),
        {
            "rope_type": "yarn",
            "factor": 16.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
        },
    ),
    (
        config.Llama3(8.0, 512),
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "original_max_position_embeddings": 512,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    ),
]


@pytest.mark.parametrize(("scaling", "reference"), SCALINGS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
def test_scaled_frequencies(scaling, reference, theta):
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    told = transformers.LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        max_position_embeddings=4096,
        rope_parameters=reference | {"rope_theta": theta},
    )
    if reference["rope_type"] == "default":
        wanted, magnitude = theta ** (-np.arange(0, 64, 2) / 64), 1.0
    else:
        wanted, magnitude = ROPE_INIT_FUNCTIONS[reference["rope_type"]](told, "cpu")
        wanted = wanted.numpy()
    np.testing.assert_allclose(rope.frequencies(theta, 64, scaling), wanted, rtol=2e-6)
    assert rope.magnitude(scaling) == pytest.approx(magnitude)
    if not isinstance(scaling, config.Unscaled):
        assert np.abs(rope.frequencies(theta, 64) / wanted - 1).max() > 0.5, "the control"


@pytest.mark.parametrize("target", [4096, 4097, 16_384])
@pytest.mark.parametrize("factor", [1.0, 2.0, 8.0])
def test_a_base_for_the_length_of_rows(factor, target):
    """The base of transformers in rows of exactly that length, which it takes anew for each length."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    told = transformers.LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "dynamic", "factor": factor, "rope_theta": 10_000.0},
    )
    reference = ROPE_INIT_FUNCTIONS["dynamic"]
    wanted, magnitude = reference(told, "cpu", seq_len=target)
    scaling = config.DynamicNtk(factor, 4096, target)
    np.testing.assert_allclose(rope.frequencies(10_000.0, 64, scaling), wanted.numpy(), rtol=2e-6)
    assert rope.magnitude(scaling) == magnitude == 1.0
    plain, longer = rope.frequencies(10_000.0, 64), reference(told, "cpu", seq_len=2 * target)[0].numpy()
    np.testing.assert_allclose(rope.frequencies(10_000.0, 64, config.DynamicNtk(factor, 4096, 100)), plain)
    assert np.abs(rope.frequencies(10_000.0, 64, scaling) / longer - 1).max() > 0.3, "the control: another length"


def test_a_scaling_reaches_queries_and_keys():
    """Turned as by slower planes, and grown."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 3, 8)), jnp.float32)
    scaling = config.Yarn(4.0, 64)
    got = made(config.Rope(scaling=scaling)).rotate(x, jnp.asarray(POSITIONS))
    wanted = rope.rotate(x, jnp.asarray(POSITIONS), rope.frequencies(10_000.0, 8, scaling))
    np.testing.assert_allclose(got, (0.1 * math.log(4.0) + 1) * wanted, atol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(made(config.Rope(scaling=scaling)).rotate(x, jnp.asarray(POSITIONS)) * x))
    plain = jax.grad(lambda x: jnp.sum(made(config.Rope()).rotate(x, jnp.zeros((2, 5), jnp.int32)) * x))
    assert np.abs(gradient(x) - plain(x)).max() > 0.1
    step = 1e-2 * jnp.ones_like(x)
    energy = lambda x: jnp.sum(made(config.Rope(scaling=scaling)).rotate(x, jnp.asarray(POSITIONS)) * x)  # noqa: E731
    np.testing.assert_allclose(
        jnp.sum(gradient(x) * step), (energy(x + step) - energy(x - step)) / 2, rtol=1e-3, atol=1e-3
    )


# --- sines and cosines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", ["halves", "interleaved"])
def test_sinusoids(pairs):
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i + 1) = the cosine."""
    x = jnp.zeros((2, 5, 16))
    got = made(config.Sinusoidal(pairs=pairs)).embed(x, jnp.asarray(POSITIONS), CALL)
    wanted = np.zeros((2, 5, 16))
    for i in range(8):
        angle = POSITIONS / 10_000 ** (2 * i / 16)
        sine, cosine = (2 * i, 2 * i + 1) if pairs == "interleaved" else (i, i + 8)
        wanted[..., sine], wanted[..., cosine] = np.sin(angle), np.cos(angle)
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    with pytest.raises(UsageError, match="15 features are odd"):
        made(config.Sinusoidal()).embed(jnp.zeros((2, 5, 15)), jnp.asarray(POSITIONS), CALL)


def test_sinusoids_of_another_library():
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.models.distilbert.modeling_distilbert import create_sinusoidal_embeddings

    table = torch.zeros(64, 16)
    create_sinusoidal_embeddings(64, 16, table)
    got = made(config.Sinusoidal()).embed(jnp.zeros((1, 64, 16)), jnp.arange(64)[None], CALL)
    np.testing.assert_allclose(got[0], table.numpy(), atol=1e-5)


# --- slopes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 4, 6, 8, 12, 16, 71])
def test_slopes(heads):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    reference = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)  # slope * position
    np.testing.assert_allclose(alibi_slopes(heads), reference[:, 0, 1].numpy(), rtol=1e-6)


def test_scores_fall_with_distance_on_both_sides():
    bias = made(config.Alibi()).bias(seen(jnp.array([[0, 1, 5]])), 4, CALL)
    distance = np.array([[0, 1, 5], [1, 0, 4], [5, 4, 0]])
    np.testing.assert_allclose(bias[0], -np.array([0.25, 0.0625, 2**-6, 2**-8])[:, None, None] * distance)


@pytest.mark.parametrize("mesh", [{"tensor": 4}, {"context": 2, "tensor": 2}])
def test_a_device_has_the_slopes_of_its_heads(mesh):
    where, at = layout(**mesh), jnp.array([[0, 1, 5, 9]])
    call = dataclasses.replace(CALL, layout=where)

    def own(at):
        return made(config.Alibi()).bias(seen(at), 8, call)

    whole, heads = PartitionSpec(), PartitionSpec(None, "tensor")
    got = jax.jit(where.spmd(own, (whole,), heads))(at)
    np.testing.assert_array_equal(got, made(config.Alibi()).bias(seen(at), 8, CALL))


def test_slopes_in_a_program_a_device():
    """Devices have some of the heads each, and their slopes."""
    kind = dataclasses.replace(KINDS["decoder"], position=config.Alibi())
    model, batch, objective = random_model(kind, std=0.1), packed_batch(kind), Prediction(chunks=2)
    trained, frozen = partition(model, lambda *_: True)

    def gradient(where):
        found = make_gradient(objective, dataclasses.replace(CALL, layout=where))
        return jax.jit(found)(trained, {"model": frozen}, batch, objective.weights(batch), jax.random.key(0))

    (gradients, (value, _)), (wanted, (loss, _)) = gradient(layout(fsdp=2, tensor=2)), gradient(CALL.layout)
    np.testing.assert_allclose(value, loss, rtol=2e-6)
    close(gradients, wanted)


# --- in models ---------------------------------------------------------------------------------------------

KINDS_OF = {
    "interpolated": config.Rope(scaling=config.Interpolated()),
    "yarn": config.Rope(scaling=config.Yarn(length=16)),
    "llama3": config.Rope(scaling=config.Llama3(length=16)),
    "sinusoidal": config.Sinusoidal(),
    "alibi": config.Alibi(),
    "relative_bias": config.RelativeBias(buckets=8, distance=12),
    "shaw": config.Shaw(clip=3),
    "transformer_xl": config.TransformerXl(),
}


MODELS = KINDS | {"decoder": config.Decoder(**SIZES, layers=2, block=config.Pattern((LOCAL,), (GLOBAL,)))}


OTHERS = {("decoder", "relative_bias")}
OTHERS |= {("encoder_decoder", name) for name in ("shaw", "transformer_xl", "alibi")}
SCALED = ("interpolated", "llama3", "sinusoidal")
OTHERS |= {(half, name) for half in ("encoder", "encoder_decoder") for name in SCALED}
"""Of which the other architectures tell as much, in less time."""
PAIRS = [
    pytest.param(kind, position, marks=[pytest.mark.nightly] if (kind, position) in OTHERS else [])
    for kind in ("decoder", "encoder", "encoder_decoder")
    for position in KINDS_OF
]


@pytest.mark.parametrize(("kind", "position"), PAIRS)
def test_one_word_in_any_architecture(kind, position):
    """It computes something of its own, and the same for a document wherever it lies in a row."""
    model = dataclasses.replace(MODELS[kind], position=KINDS_OF[position])
    ids = random_ids(1, 8)
    segments = np.array([[1, 1, 1, 2, 2, 2, 2, 2]])

    def logits(inputs, model=model):
        built = random_model(model)
        memory = built.encode(inputs, CALL) if kind == "encoder_decoder" else None
        return built.logits(built(inputs, CALL, memory=memory).hidden, CALL)

    packed, alone = logits(tokens(ids, segments)), logits(tokens(ids[:, 3:]))
    np.testing.assert_allclose(packed[:, 3:], alone, atol=2e-5)
    plain = logits(tokens(ids[:, 3:]), dataclasses.replace(model, position=config.NoPosition()))
    assert np.abs(alone - plain).max() > 1e-3


@pytest.mark.parametrize("position", KINDS_OF)
def test_decoding_knows_the_position(position):
    """The last of 24 tokens after the others, from a cache with room, is as in the whole row."""
    model = random_model(dataclasses.replace(MODELS["decoder"], position=KINDS_OF[position]))
    inputs = tokens(random_ids(2, 24))

    @jax.jit
    def both(model, inputs):
        first, last = (jax.tree.map(lambda x, c=c: x[:, c], inputs) for c in (slice(0, 23), slice(23, 24)))
        cache = model(first, CALL, cache=model.empty_cache(2, 32, CALL)).cache
        return model(inputs, CALL).hidden[:, -1], model(last, CALL, cache=cache).hidden[:, 0]

    whole, stepped = both(model, inputs)
    np.testing.assert_allclose(stepped, whole, atol=1e-4)
