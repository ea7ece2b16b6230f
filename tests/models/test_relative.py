"""Models whose attention knows distances, on meshes, unrolled, padded on the left, and counted by closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.flops import flops_per_token, parameters
from jaxlm.layers.names import combine, flatten, partition
from jaxlm.models import build
from jaxlm.objectives.prediction import Prediction
from jaxlm.train.step import make_gradient
from tests.tiny import CALL, GLOBAL, KINDS, SIZES, close, layout, packed_batch, random_ids, random_model, tokens

POSITIONS = {
    "relative_bias": config.RelativeBias(buckets=8, distance=12),
    "shaw": config.Shaw(clip=3),
    "transformer_xl": config.TransformerXl(),
}


def decoder(position, **changes):
    return config.Decoder(**SIZES | {"layers": 2, "block": GLOBAL, "position": POSITIONS[position]} | changes)


def gradient(kind, **how):
    """Of each parameter and of the loss, by one program a device where there is a mesh."""
    model, batch, objective = random_model(kind, std=0.1), packed_batch(kind), Prediction(chunks=2)
    trained, frozen = partition(model, lambda *_: True)
    found = jax.jit(make_gradient(objective, dataclasses.replace(CALL, **how)))
    gradients, (value, _) = found(trained, {"model": frozen}, batch, objective.weights(batch), jax.random.key(0))
    return value, gradients


@pytest.mark.parametrize(
    ("kind", "mesh"),
    [
        (decoder("relative_bias"), {"fsdp": 2, "tensor": 2}),
        pytest.param(decoder("relative_bias"), {"pipeline": 2, "tensor": 2}, marks=pytest.mark.nightly),
        pytest.param(
            dataclasses.replace(KINDS["encoder_decoder"], position=POSITIONS["relative_bias"]),
            {"tensor": 2},
            marks=pytest.mark.nightly,
        ),
        pytest.param(decoder("shaw"), {"fsdp": 2, "tensor": 2}, marks=pytest.mark.nightly),
        (decoder("transformer_xl"), {"fsdp": 2, "tensor": 2}),
    ],
    ids=["bias", "pipelined bias", "biases", "shaw", "transformer_xl"],
)
def test_a_program_a_device(kind, mesh):
    """Devices have some of the heads each; a parameter's gradient comes together. Scanned there, not here."""
    value, gradients = gradient(kind, layout=layout(**mesh), pipeline=config.Pipeline(micro_batches=2))
    wanted, reference = gradient(kind, layers="unroll")
    np.testing.assert_allclose(value, wanted, rtol=2e-6)
    close(gradients, reference)
    own = [leaf for name, leaf in flatten(reference).items() if "position" in name]
    assert own
    assert all(np.abs(leaf).max() > 1e-5 for leaf in own)


@pytest.mark.parametrize("position", POSITIONS)
def test_padded_on_the_left(position):
    """A row behind padding is as without."""
    model, ids, pads = random_model(decoder(position)), random_ids(1, 10), 4
    run = jax.jit(lambda inputs: model(inputs, CALL).hidden)
    padded = tokens(np.pad(ids, ((0, 0), (pads, 0))), [[0] * pads + [1] * 10])
    np.testing.assert_allclose(run(padded)[:, pads:], run(tokens(ids)), atol=2e-5)


def test_an_encoder_has_a_table_of_its_own():
    """Of distances on both sides: all of its buckets count, and none of the decoder's."""
    kind = dataclasses.replace(KINDS["encoder_decoder"], position=POSITIONS["relative_bias"], encoder_layers=1)
    model, source = random_model(kind), tokens(random_ids(1, 14))
    trained, frozen = partition(model, lambda name, _: "position" in name)

    def total(trained):
        return jnp.sum(jnp.sin(combine(trained, frozen).encode(source, CALL).hidden))

    gradients = jax.jit(jax.grad(total))(trained)
    assert (np.abs(gradients.encoder_position.table.kernel) > 1e-6).sum(axis=1).tolist() == [4, 4, 4, 4, 0, 4, 4, 4]
    assert not np.any(gradients.decoder.position.table.kernel)


KINDS_OF = {name: KINDS[name] for name in ("decoder", "wired", "encoder", "encoder_decoder")}


@pytest.mark.parametrize("position", [*POSITIONS.values(), config.Shaw(2, "keys"), config.Learned(32)], ids=str)
@pytest.mark.parametrize("name", KINDS_OF)
def test_closed_forms_count_every_leaf(name, position):
    kind = dataclasses.replace(KINDS_OF[name], position=position)
    model = jax.eval_shape(lambda: build(kind, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == parameters(kind)["total"]


def test_operations_of_distances():
    """Products with vectors of distances: of 4 and as many values; of as many as keys, 6 for each of 12 queries."""

    def attention(position):
        return flops_per_token(dataclasses.replace(decoder("shaw"), position=position), 12)["attention"]

    plain, each = attention(config.NoPosition()), 2 * 2 * 4 * 8  # layers, multiply and add, heads, features
    assert plain == 2 * 6 * each
    assert attention(config.RelativeBias()) == plain
    assert attention(config.Shaw(3)) == plain + 2 * 4 * each
    assert attention(config.Shaw(3, "keys")) == plain + 4 * each
    assert attention(config.TransformerXl()) == plain + 6 * each


def test_heads_that_differ_share_no_table():
    other = config.Block(config.Attention(2, 2, 8), config.Gated(32))
    kind = decoder("relative_bias", block=config.Pattern((GLOBAL, other)))
    with pytest.raises(UsageError, match="relative_bias: all layers share one table of heads"):
        jax.eval_shape(lambda: build(kind, jax.random.key(0)))
    turned = config.Block(config.Attention(2, 2, 8, position=config.Rope()), config.Gated(32))
    kind = decoder("relative_bias", block=config.Pattern((GLOBAL, turned)))
    model = jax.eval_shape(lambda: build(kind, jax.random.key(0)))
    assert model.position.table.kernel.shape == (8, 4)
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == parameters(kind)["total"]


def test_a_layer_that_turns_its_queries_meets_no_distances():
    turned = config.Block(config.Attention(4, 2, 8, position=config.Rope()), config.Gated(32))
    model = jax.eval_shape(
        lambda: build(decoder("transformer_xl", block=config.Pattern((GLOBAL, turned))), jax.random.key(0))
    )
    assert [layer.attention.position is None for layer in model.blocks.period] == [False, True]
