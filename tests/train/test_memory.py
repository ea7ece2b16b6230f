"""Exhausted memory is said in words of the experiment; every other error stays what it is."""

import jax
import jax.numpy as jnp
import pytest
from train.tiny import experiment

from jaxlm.config.errors import Failure
from jaxlm.train.memory import enough


def test_what_a_device_cannot_hold():
    with (
        pytest.raises(Failure, match=r"(?s)too little memory: .*rows of .*micro_batches.*where.remat"),
        enough(experiment()),
    ):
        jax.block_until_ready(jnp.zeros(2**47, jnp.int8))


def test_other_errors_are_not_touched():
    error = jax.errors.JaxRuntimeError("INTERNAL: something else")
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"), enough(experiment()):
        raise error
