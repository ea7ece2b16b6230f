"""What is kept for the backward pass is what the policy names."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.remat import NAMES
from jaxlm.layers import remat
from tests.tiny import CALL, KINDS, packed_batch, random_model

BLOCK = config.Block(config.Attention(4, 2, 8), config.Gated(32))
KIND = dataclasses.replace(KINDS["decoder"], layers=1, block=BLOCK)


def loss(model, word):
    """Of one layer, in line."""
    call = dataclasses.replace(CALL, layers="unroll", remat=word, attention="xla")
    return jnp.sum(model(packed_batch(KIND).inputs, call).hidden)


def products(word: str) -> int:
    """Matrix products of the compiled gradient."""
    compiled = jax.jit(jax.grad(loss), static_argnums=1).lower(random_model(KIND), word).compile()
    return len(re.findall(r"= \S+ (?:dot|custom-call)\(", compiled.as_text()))


def test_what_is_named_is_not_computed_again():
    """Query, key, value, gate and up are a product each."""
    full = products("full")
    assert products("gate") == full - 1
    assert products("gate+up+value") == full - 3
    assert products("none") < products("+".join(NAMES)) <= full - 5


@pytest.mark.parametrize(("word", "there"), [("query+@up", True), ("query+up", False)])
def test_host_memory(word, there):
    text = str(jax.make_jaxpr(jax.grad(loss), static_argnums=1)(random_model(KIND), word))
    assert ("host" in text) == there


@pytest.mark.parametrize("word", ["some", "query+uq", ""])
def test_an_unknown_word_is_refused_with_the_choices(word):
    with pytest.raises(UsageError, match=r"is none of query, key.*choose none, full, dots, or names"):
        remat.policy(word)
