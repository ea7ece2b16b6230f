"""LoRA starts as the identity, computes what its merged matrix computes, and trains nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.adapters.build import adapted, trained
from jaxlm.adapters.lora import LoRA
from jaxlm.config.errors import UsageError
from jaxlm.layers.axes import shardings
from jaxlm.layers.names import combine, flatten, map_named, partition
from jaxlm.layers.projection import Dense, project
from jaxlm.layers.weights import map_weights
from jaxlm.objectives.prediction import Prediction
from jaxlm.quantize.build import quantized
from jaxlm.quantize.weight import Quantized
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

KINDS = KINDS | {"decoder": config.Decoder(**SIZES, layers=3, block=config.Pattern((GLOBAL,), prefix=(LOCAL,)))}
ADAPTER = config.Lora(rank=2)
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def later(model):
    """As after some steps: b is no longer zero."""
    return map_named(lambda name, leaf: normal(*leaf.shape) if name.endswith(".b") else leaf, model)


def merged(model):
    return map_weights(lambda _, w: Dense(w.dense(), w.bias, w.axes, w.inputs) if isinstance(w, LoRA) else w, model)


@jax.jit
def run(model):
    return model.logits(model(tokens(random_ids(2, 6)), CALL).hidden, CALL)


@pytest.mark.nightly  # that of dropout is like it
def test_adapters_on_devices_that_join_their_tokens():
    """Gradients of `a` and `b` in a program a device, whichever of their sides is spread."""
    adapter = config.Lora(alpha=1.0)
    model = later(adapted(random_model(KINDS["decoder"], std=0.1), adapter, KEY))
    batch = packed_batch(KINDS["decoder"])
    halves, objective = partition(model, trained(adapter)), Prediction(chunks=2)

    def gradient(where):
        found = make_gradient(objective, dataclasses.replace(CALL, layout=where))
        return jax.jit(found)(halves[0], {"model": halves[1]}, batch, objective.weights(batch), KEY)

    (gradients, (value, _)), (wanted, (loss, _)) = gradient(layout(fsdp=2, tensor=2)), gradient(CALL.layout)
    np.testing.assert_allclose(value, loss, rtol=2e-6)
    close(gradients, wanted)


@pytest.mark.parametrize(
    ("shape", "axes", "inputs", "spec", "x"),
    [
        ((8, 4, 5), ("embed", "heads", "head"), 1, "rpe,ehd->rphd", (2, 3, 8)),
        ((4, 5, 8), ("heads", "head", "embed"), 2, "rphd,hde->rpe", (2, 3, 4, 5)),
    ],
)
def test_the_low_rank_product(shape, axes, inputs, spec, x):
    a, b = normal(*shape[:inputs], 3), normal(3, *shape[inputs:])
    weight = LoRA(Dense(normal(*shape), normal(*shape[inputs:]), axes, inputs), a, b, 0.5)
    x = normal(*x)
    whole = np.asarray(weight.base.kernel, np.float64) + 0.5 * np.tensordot(a, b, axes=1)
    np.testing.assert_allclose(weight.dense(), whole, atol=1e-5)
    np.testing.assert_allclose(
        project(weight, x, spec, CALL), np.einsum(spec, x, whole) + np.asarray(weight.bias), atol=1e-4
    )
    with pytest.raises(UsageError, match="one adapter"):
        weight.dot(x, spec, CALL, adapters=jnp.zeros(2, int))


@pytest.mark.parametrize("name", ["decoder", "rwkv4"])
def test_identity_then_merge(name):
    """Of layers by themselves and stacked ones."""
    base = random_model(KINDS[name])
    first = adapted(base, config.Lora(rank=2, alpha=3.0), KEY)
    wanted = run(base)
    np.testing.assert_allclose(run(first), wanted, atol=1e-6)
    last = later(first)
    moved = run(last)
    assert np.abs(moved - wanted).max() > 0.1
    np.testing.assert_allclose(run(merged(last)), moved, atol=1e-4 * max(1, np.std(moved)))


def test_which_weights_are_adapted():
    model = adapted(random_model(KINDS["encoder_decoder"]), ADAPTER, KEY)
    roots = {
        name.split(".attention")[0].split(".cross")[0].split(".mlp")[0]
        for name in flatten(model)
        if name.endswith(".a")
    }
    assert roots == {"encoder.period.0", "decoder.blocks.period.0"}
    assert isinstance(model.decoder.blocks.period[0].cross.key, LoRA)
    assert isinstance(model.decoder.embedding, Dense)


def test_only_adapters_are_trained():
    model = adapted(random_model(KINDS["decoder"]), ADAPTER, KEY)
    ours, frozen = partition(model, trained(ADAPTER))
    names = flatten(ours)
    assert names
    assert all(name.rsplit(".", 1)[-1] in ("a", "b") and ".base." not in name for name in names)
    assert not any(name.startswith(("embedding", "norm")) for name in names)
    blocks = [name for name in flatten(frozen) if name.endswith("base.kernel")]
    assert len(names) == 2 * len(blocks)
    batch = packed_batch(KINDS["decoder"], rows=2)

    def loss(ours):
        return jnp.sum(jnp.square(combine(ours, frozen)(batch.inputs, CALL).hidden))

    gradients = flatten(jax.jit(jax.grad(loss))(ours))
    assert gradients.keys() == names.keys()
    for key, gradient in gradients.items():
        zero = (np.asarray(gradient) == 0).all()
        assert zero == key.endswith(".a"), f"{key}: while b is zero, a gets no gradient and b does"


def test_sharded_as_its_base():
    model = adapted(random_model(KINDS["decoder"]), ADAPTER, KEY)
    where = layout(fsdp=2, tensor=2)
    shapes = {
        name: place.shard_shape(leaf.shape)
        for (name, place), leaf in zip(
            flatten(shardings(model, where)).items(), jax.tree.leaves(model), strict=True
        )
    }
    assert shapes["blocks.period.0.attention.query.a"] == (2, 8, 2)
    assert shapes["blocks.period.0.attention.query.b"] == (2, 2, 2, 8)
    assert shapes["blocks.period.0.attention.out.a"] == (2, 2, 8, 2)
    assert shapes["blocks.period.0.attention.out.b"] == (2, 2, 8)


def test_on_integers():
    """Over int8, the sum with the rounded matrix; merged, dense numbers."""
    base, x = Quantized.of(Dense(normal(8, 6), None, ("embed", "mlp")), config.Integers()), normal(2, 3, 8)
    weight = LoRA(base, normal(8, 2), normal(2, 6), 0.5)
    whole = np.asarray(base.dense(), np.float64) + 0.5 * np.asarray(weight.a) @ np.asarray(weight.b)
    np.testing.assert_allclose(weight.dense(), whole, atol=1e-5)
    np.testing.assert_allclose(project(weight, x, "rpe,em->rpm", CALL), x @ whole, atol=1e-4)
    model = adapted(quantized(random_model(KINDS["decoder"]), config.Rounded()), ADAPTER, KEY)
    assert isinstance(model.blocks.period[0].mlp.up.base, Quantized)


def test_two_weights_of_one_shape_draw_different_numbers():
    model = adapted(random_model(KINDS["decoder"]), ADAPTER, KEY)
    block = model.blocks.prefix[0]
    assert not np.array_equal(block.attention.key.a, block.attention.value.a)
    scale = np.std(np.concatenate([np.ravel(w.a) for w in (block.mlp.gate, block.mlp.up)])) * 16**0.5
    assert 0.4 < scale < 0.75, "uniform within 1 / sqrt(inputs): 1 / sqrt(3) of that"
    assert block.mlp.gate.scale == 16.0 / 2


def test_a_tied_embedding_is_refused_by_name():
    """Its product is with the transpose, for which this form is not made."""
    model = adapted(random_model(KINDS["decoder"]), config.Lora(rank=2, targets="."), KEY)
    with pytest.raises(UsageError, match="transpose"):
        model.logits(jnp.ones((3, 16)), CALL)
