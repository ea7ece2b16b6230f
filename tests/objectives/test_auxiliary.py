"""What a mixture adds to a loss: its weights, what it couples, and what does not agree."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config import Balance, Block, Capacity, Moe, Pattern
from jaxlm.config.errors import UsageError
from jaxlm.objectives.auxiliary import NONE, auxiliary, documents
from jaxlm.objectives.build import build
from tests.tiny import GLOBAL, HEADS, KINDS, SIZES, packed_batch

MOE = Moe(experts=4, width=8, balance=Balance(0.02))
BLOCK = Block(HEADS, MOE)


def decoder(*blocks, layers=None):
    return config.Decoder(**SIZES, layers=layers or len(blocks), block=Pattern(blocks))


def having(**fields):
    return Block(HEADS, dataclasses.replace(MOE, **fields))


def test_documents_are_counted_once_in_each_row():
    segments = jnp.array([[1, 1, 2, 0], [0, 0, 0, 0], [1, 2, 3, 4], [4, 4, 1, 4]])
    assert float(documents(segments)) == 2 + 0 + 4 + 2


def test_weights_are_of_the_mixtures_alone():
    """A dense layer in between is not counted."""
    kind = decoder(BLOCK, GLOBAL, BLOCK)
    objective = build(config.Autoregressive(), kind)
    assert objective.coefficients == {"cross_entropy": 1.0, "load_balance": 0.02, "router_z": 0.001, "dropped": 0.0}
    batch = packed_batch(kind)
    tokens = (np.asarray(batch.inputs.segments) > 0).sum()
    weights = objective.weights(batch)
    assert {name: float(weights[name]) for name in weights if name != "cross_entropy"} == {
        "load_balance": 2 * 2 * 8,
        "router_z": 2 * tokens,
        "dropped": 2 * tokens,
    }
    over = auxiliary(decoder(having(balance=Balance(over="batch")), GLOBAL))
    assert float(over.weights(batch)["load_balance"]) == 1


def test_both_sides_of_an_encoder_decoder():
    kind = config.EncoderDecoder(**SIZES, encoder_layers=2, decoder_layers=3, block=BLOCK)
    batch = packed_batch(kind)
    batch = batch.replace(source=batch.source.replace(segments=(batch.source.segments > 0).astype(int)))
    assert float(auxiliary(kind).weights(batch)["load_balance"]) == 3 * 16 + 2 * 8


def test_what_is_coupled():
    assert auxiliary(decoder(BLOCK)).couples == "row"
    assert auxiliary(decoder(having(dispatch=Capacity()))).couples == "row"
    assert auxiliary(decoder(having(balance=Balance(over="batch")))).couples == "batch"
    assert auxiliary(decoder(BLOCK, having(dispatch=Capacity(rows=2)))).couples == "batch"


@pytest.mark.parametrize("name", KINDS)
def test_nothing_without_a_mixture(name):
    if name == "mixture":
        return
    objective = build(config.Autoregressive(), KINDS[name])
    assert (objective.auxiliary, objective.couples) == (NONE, "token")
    assert list(objective.coefficients) == ["cross_entropy"]


def test_mixtures_that_disagree_are_refused():
    with pytest.raises(UsageError, match=r"coefficient=0.5.*router_z=0.001.*coefficient=0.02"):
        auxiliary(decoder(BLOCK, having(balance=Balance(0.5))))
    with pytest.raises(UsageError, match=r"router_z=0.1"):
        auxiliary(decoder(BLOCK, having(router_z=0.1)))
    auxiliary(decoder(BLOCK, having(experts=8, dispatch=Capacity())))
