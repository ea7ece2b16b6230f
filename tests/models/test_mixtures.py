"""A model with dense, dropless and bounded layers: the same numbers whichever way they are computed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm import config
from jaxlm.config import Balance, Block, Capacity, Moe, Pattern
from jaxlm.config.errors import UsageError
from jaxlm.layers.axes import shardings
from jaxlm.layers.names import partition
from jaxlm.objectives.build import build
from jaxlm.train.state import State
from jaxlm.train.step import make_step
from tests.tiny import CALL, GLOBAL, HEADS, SIZES, close, layout, packed_batch, random_model

MOE = Moe(experts=4, width=16, balance=Balance(0.3), router_z=0.05)
SPARSE, BOUNDED = Block(HEADS, MOE), Block(HEADS, dataclasses.replace(MOE, shared=8, dispatch=Capacity(0.6)))
KIND = config.Decoder(**SIZES, layers=5, block=Pattern((SPARSE, BOUNDED), prefix=(GLOBAL,)), dropout=0.1)
PAIR = config.EncoderDecoder(**SIZES, encoder_layers=2, decoder_layers=2, block=SPARSE)
TERMS = ("load_balance", "router_z", "dropped")


def loss(model, batch, call, kind):
    objective = build(config.Autoregressive(chunks=5), kind)
    sums, _ = objective.totals(model, batch, None, call, {})
    weights = objective.weights(batch)
    terms = {name: sums[name] / weights[name] for name in sums}
    return sum(objective.coefficients[name] * term for name, term in terms.items()), terms


def gradient(model, batch, call=CALL, kind=KIND):
    run = functools.partial(loss, call=call, kind=kind)
    return jax.jit(jax.value_and_grad(run, has_aux=True))(model, batch)


@functools.cache
def arguments():
    return random_model(KIND, std=0.15), packed_batch(KIND)


@functools.cache
def reference():
    return gradient(*arguments())


def agree(got):
    (value, terms), gradients = got
    (wanted, wanted_terms), wanted_gradients = reference()
    np.testing.assert_allclose(value, wanted, rtol=2e-6)
    for name in TERMS:
        np.testing.assert_allclose(terms[name], wanted_terms[name], rtol=2e-6, err_msg=name)
    close(gradients, wanted_gradients)


@pytest.mark.nightly
def test_no_token_stands_between_two_experts():
    """Otherwise rounding would choose, and the comparisons below mean nothing; and some choices are dropped."""
    model, batch = arguments()
    call = dataclasses.replace(CALL, taps=("router", "mlp.mean_square"))
    taps = jax.jit(lambda m, b: m(b.inputs, call).taps)(model, batch)
    assert (taps["router"].shape[0], taps["mlp.mean_square"].shape[0]) == (4, 5), "the dense layer has no router"
    ordered = np.sort(np.asarray(taps["router"]), axis=-1)
    gap = (ordered[..., -2] - ordered[..., -3])[:, np.asarray(batch.inputs.segments) > 0]
    assert gap.min() >= 1e-4
    assert 0.02 < reference()[0][1]["dropped"] < 0.5


@pytest.mark.parametrize("way", [{"layers": "unroll"}, {"remat": "full"}])
def test_unrolled_and_recomputed(way):
    agree(gradient(*arguments(), dataclasses.replace(CALL, **way)))


def test_eight_devices():
    model, batch = arguments()
    where = layout(fsdp=2, tensor=2)
    model = jax.tree.map(jax.device_put, model, shardings(model, where))
    batch = jax.tree.map(lambda leaf: jax.device_put(leaf, where.sharding(("row",), (8,))), batch)
    agree(gradient(model, batch, dataclasses.replace(CALL, layout=where)))


def stepped(micro_batches, kind=KIND):
    model, batch = arguments()
    trained, frozen = partition(model, lambda *_: True)
    optimizer = optax.chain(optax.trace(decay=0.0), optax.scale(-0.1))
    state = State(jnp.int32(4), trained, {"model": frozen}, optimizer.init(trained), None)
    objective = build(config.Autoregressive(chunks=5), kind)
    step = make_step(objective, optimizer, CALL, seed=1, micro_batches=micro_batches)
    new, metrics = jax.jit(step)(state, batch)
    return new.optimizer[0].trace, metrics


@pytest.mark.nightly
def test_micro_batches_are_the_batch():
    """With dropout on; the documents and tokens of the parts differ in number."""
    (whole, metrics), (split, split_metrics) = stepped(1), stepped(4)
    for name in ("loss", "cross_entropy", *TERMS):
        np.testing.assert_allclose(split_metrics[name], metrics[name], rtol=1e-6, err_msg=name)
    close(split, whole)


def test_what_couples_the_batch_is_not_split():
    whole = dataclasses.replace(MOE, balance=Balance(0.3, over="batch"))
    kind = config.Decoder(**SIZES, layers=2, block=Block(HEADS, whole))
    with pytest.raises(UsageError, match=r"micro_batches=4"):
        stepped(4, kind)


def test_both_sides_of_an_encoder_decoder():
    """The encoder's sums reach the loss: its router has a gradient from the load balance alone."""
    model, batch = random_model(PAIR), packed_batch(PAIR)

    def balance(model):
        return loss(model, batch, CALL, PAIR)[1]["load_balance"]

    value, gradients = jax.jit(jax.value_and_grad(balance))(model)
    sides = [
        model.encode(batch.source, CALL).terms["load_balance"],
        model(batch.inputs, CALL, memory=model.encode(batch.source, CALL).replace(terms={})).terms["load_balance"],
    ]
    np.testing.assert_allclose(value, (sides[0] + sides[1]) / (2 * 2 * 16), rtol=1e-6)
    assert min(sides) > 0
    for half in (gradients.encoder, gradients.decoder.blocks):
        assert np.abs(half.period[0].mlp.router.kernel).max() > 1e-4


def test_documents_do_not_see_each_other():
    """The first ones: a capacity is shared by the row, but earlier tokens go first."""
    model, batch = random_model(dataclasses.replace(KIND, layers=3), std=0.15), arguments()[1]
    second = np.asarray(batch.inputs.segments) == 2
    other = batch.inputs.replace(ids=jnp.where(second, 5, batch.inputs.ids))

    def first(blocks, tokens):
        return np.asarray(model.replace(blocks=blocks)(tokens, CALL).hidden)[np.asarray(tokens.segments) == 1]

    prefix, (sparse, bounded) = model.blocks.prefix, model.blocks.period
    for period in ((sparse,), (bounded,)):
        blocks = model.blocks.replace(prefix=prefix, period=period)
        np.testing.assert_allclose(first(blocks, other), first(blocks, batch.inputs), atol=1e-5)
