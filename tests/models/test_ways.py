"""The same numbers whichever way they are computed: scanned, unrolled, recomputed, op by op, on eight devices."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxlm.config.errors import UsageError
from jaxlm.layers.axes import shardings
from jaxlm.layers.names import flatten, partition
from jaxlm.objectives.prediction import Prediction
from jaxlm.train.step import make_gradient
from tests.tiny import CALL, KINDS, NAMES, close, layout, packed_batch, random_model

OBJECTIVE = Prediction(chunks=5)


def loss(model, batch, call):
    """The loss and, for every token, the logits."""
    sums, _ = OBJECTIVE.totals(model, batch, None, call, {})
    value = sums["cross_entropy"] / OBJECTIVE.weights(batch)["cross_entropy"]
    memory = None if batch.source is None else model.encode(batch.source, call)
    return value, model.logits(model(batch.inputs, call, memory=memory).hidden, call)


@functools.cache
def reference(name):
    return jax.jit(jax.value_and_grad(functools.partial(loss, call=CALL), has_aux=True))(*arguments(name))


def arguments(name):
    # The encoder's key biases have a zero gradient whose rounding grows with the weights.
    return random_model(KINDS[name], std=0.1), packed_batch(KINDS[name])


def agree(name, got):
    """Loss within 2e-6, logits within 2e-5 of their spread where there are tokens, gradients leaf by leaf."""
    ((value, logits), gradients), ((wanted, wanted_logits), wanted_gradients) = got, reference(name)
    np.testing.assert_allclose(value, wanted, rtol=2e-6)
    real = np.asarray(arguments(name)[1].inputs.segments) > 0
    error = np.abs(np.asarray(logits) - np.asarray(wanted_logits))[real].max()
    assert error <= 2e-5 * max(1, np.std(wanted_logits))
    close(gradients, wanted_gradients)


HOW = ({"layers": "unroll"}, {"remat": "full"}, {"remat": "dots"})
WAYS = [(name, way) for name in ("decoder", "wired", "rwkv4") for way in HOW]


@pytest.mark.parametrize(
    ("name", "way"),
    [
        pytest.param(*one, marks=pytest.mark.nightly if one[0] == "rwkv4" or "full" in one[1].values() else ())
        for one in WAYS
    ],
)
def test_unrolled_and_recomputed(name, way):
    call = dataclasses.replace(CALL, **way)
    agree(name, jax.jit(jax.value_and_grad(functools.partial(loss, call=call), has_aux=True))(*arguments(name)))


def test_two_stacks_unrolled():
    """The gradients are those of the decoder's stack."""
    call, name = dataclasses.replace(CALL, layers="unroll"), "encoder_decoder"
    value, _ = jax.jit(functools.partial(loss, call=call))(*arguments(name))
    np.testing.assert_allclose(value, reference(name)[0][0], rtol=2e-6)


SPREAD = {"fsdp": 2, "tensor": 2}
MESHES = [
    ("decoder", {"fsdp": 8}),
    ("decoder", {}),
    *(
        pytest.param(name, SPREAD, marks=pytest.mark.nightly if name in ("rwkv6", "rwkv7") else ())
        for name in KINDS
    ),
]


@pytest.mark.parametrize(("name", "mesh"), MESHES)
def test_eight_devices(name, mesh):
    model, batch = arguments(name)
    where = layout(**mesh)
    places = shardings(model, where)
    rows = where.sharding(("row",), (8,))
    model = jax.tree.map(jax.device_put, model, places)
    batch = jax.tree.map(lambda leaf: jax.device_put(leaf, rows), batch)
    call = dataclasses.replace(CALL, layout=where)
    got = jax.jit(jax.value_and_grad(functools.partial(loss, call=call), has_aux=True))(model, batch)
    agree(name, got)
    placed, shards = flatten(places), flatten(got[1])
    for key, gradient in shards.items():
        if key.endswith("kernel"):
            wanted = placed[key].shard_shape(gradient.shape)
            assert gradient.addressable_shards[0].data.shape == wanted, (
                f"{key} came back as {gradient.sharding.spec}"
            )


@pytest.mark.parametrize("name", NAMES)
def test_one_program_a_device(name):
    """As in training: devices join their tokens for heads, features and scores, and sum gradients themselves."""
    model, batch = arguments(name)
    where = layout(fsdp=2, tensor=2)
    trained, frozen = partition(model, lambda *_: True)
    gradient = jax.jit(make_gradient(OBJECTIVE, dataclasses.replace(CALL, layout=where)))
    key = jax.random.key(0)
    gradients, (value, _) = gradient(trained, {"model": frozen}, batch, OBJECTIVE.weights(batch), key)
    (wanted, _), wanted_gradients = reference(name)
    np.testing.assert_allclose(value, wanted, rtol=2e-6)
    close(gradients, wanted_gradients)


def test_op_by_op():
    """Of the model that holds an encoder's and a decoder's blocks."""
    name = "encoder_decoder"
    model, batch = arguments(name)
    with jax.disable_jit():
        value, logits = loss(model, batch, CALL)
    (wanted, wanted_logits), _ = reference(name)
    np.testing.assert_allclose(value, wanted, rtol=2e-6)
    real = np.asarray(batch.inputs.segments) > 0
    np.testing.assert_allclose(np.asarray(logits)[real], np.asarray(wanted_logits)[real], atol=2e-5)


def test_the_comparison_can_fail():
    """One part in ten thousand of one leaf is noticed."""
    _, gradients = reference("decoder")
    wrong = dataclasses.replace(gradients, norm=jax.tree.map(lambda g: g * 1.0001, gradients.norm))
    with pytest.raises(AssertionError, match=r"norm\.scale"):
        close(wrong, gradients)


def test_an_unknown_remat_is_refused():
    model, batch = arguments("decoder")
    with pytest.raises(UsageError, match=r"where\.remat='some'"):
        jax.eval_shape(lambda m, b: m(b.inputs, dataclasses.replace(CALL, remat="some")), model, batch)
