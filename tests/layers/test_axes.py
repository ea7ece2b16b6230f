"""Every leaf of a model has logical axes, and a leaf without them is refused."""

import jax.numpy as jnp
import pytest
from flax import struct

from jaxlm.layers.axes import Named, logical_axes, shardings
from jaxlm.layers.projection import Dense
from tests.tiny import layout

CUBE = layout(fsdp=2, tensor=2)


def test_an_absent_bias_has_no_axes():
    kernel, axes = jnp.ones((4, 6)), ("embed", "mlp")
    without, whole = (logical_axes(Dense(kernel, bias, axes)) for bias in (None, jnp.ones(6)))
    assert (without.kernel, without.bias) == (Named(axes), None)
    assert whole.bias == Named(("mlp",))


def test_stacked_leaves_are_placed_by_their_last_dimensions():
    weight = Dense(jnp.ones((3, 4, 6)), jnp.ones((3, 6)), ("embed", "mlp"))
    places = shardings((weight,), CUBE)[0]
    assert places.kernel.shard_shape((3, 4, 6)) == (3, 2, 3)
    assert places.bias.shard_shape((3, 6)) == (3, 3)


def test_a_leaf_without_axes_is_refused():
    @struct.dataclass
    class Nameless:
        array: object

    with pytest.raises(TypeError, match="leaf without logical axes: name them in leaf_axes"):
        logical_axes(Nameless(jnp.ones(3)))
