"""A new position, cache, weight or mesh axis is one new class or line: nothing else has to know of it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array

from jaxlm.layers import cache as caches
from jaxlm.layers.axes import shardings
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.layers.positions import NoPosition
from jaxlm.layers.projection import Weight
from jaxlm.layers.weights import in_blocks, map_weights
from jaxlm.parallel.layout import TABLE, Layout, single_device

CALL = Call(single_device())


def logits(model, tokens, call=CALL):
    return model.logits(model(tokens, call).hidden, call)


def decoded(model, tokens, cache):
    """All tokens but the last at once, then the last."""
    first, last = (jax.tree.map(lambda x, c=c: x[:, c], tokens) for c in (slice(0, 11), slice(11, 12)))
    output = model(first, CALL, cache=cache)
    return model.logits(model(last, CALL, cache=output.cache).hidden, CALL)


def one_document(tokens: Tokens) -> Tokens:
    ones = jnp.ones_like(tokens.ids)
    return Tokens(tokens.ids, ones, jnp.arange(12)[None].repeat(8, 0))


@struct.dataclass
class Slopes(NoPosition):
    """Scores fall with distance, by a slope for each head."""

    def bias(self, mask, heads, call):
        distance = (mask.q_positions[:, None, :, None] - mask.k_positions[:, None, None, :]).astype(jnp.float32)
        return -(2.0 ** -jnp.arange(1.0, 5.0)).reshape(1, 4, 1, 1) * distance


def test_position(make, tokens):
    tokens, model = one_document(tokens), make("decoder").replace(position=Slopes())
    expected = logits(model, tokens)
    assert jnp.abs(expected - logits(make("decoder"), tokens)).max() > 1e-2
    got = decoded(model, tokens, model.empty_cache(8, 12, CALL))
    np.testing.assert_allclose(got[:, 0], expected[:, -1], atol=2e-5)


@struct.dataclass
class Backwards:
    """A cache that fills from its last slot."""

    inner: caches.View

    def append(self, keys, values, positions, segments, lengths):
        width = self.inner.keys.shape[1]
        slots = width - 1 - (lengths[:, None] + jnp.arange(keys.shape[1])[None])
        rows = jnp.arange(keys.shape[0])[:, None]
        new = caches.View(keys, values, positions, segments)
        return Backwards(jax.tree.map(lambda old, new: old.at[rows, slots].set(new), self.inner, new))

    def view(self):
        return self.inner


def test_cache(make, tokens):
    tokens, model = one_document(tokens), make("decoder")
    cache = model.empty_cache(8, 12, CALL)
    cache = cache.replace(layers=tuple(caches.Block(Backwards(layer.attention.view())) for layer in cache.layers))
    np.testing.assert_allclose(decoded(model, tokens, cache)[:, 0], logits(model, tokens)[:, -1], atol=2e-5)


@struct.dataclass
class Scaled:
    """Another weight with a trained factor."""

    base: Weight
    factor: Array
    axes = property(lambda self: self.base.axes)
    inputs = property(lambda self: self.base.inputs)
    bias = property(lambda self: self.base.bias)

    def dot(self, x, spec, call, *, key=None, adapters=None):
        return self.factor.astype(x.dtype) * self.base.dot(x, spec, call, key=key, adapters=adapters)

    def dense(self):
        return self.base.dense() * self.factor.reshape(self.factor.shape + (1,) * len(self.axes))

    def leaf_axes(self):
        return {"factor": ()}


def scale(name, weight):
    kernel = weight.dense()
    stacked = kernel.shape[: kernel.ndim - len(weight.axes)]
    return Scaled(weight, jnp.full(stacked, 2.0)) if in_blocks(name) else weight


def test_weight(make, tokens):
    model = map_weights(scale, make("decoder"))
    doubled = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 2 * leaf if "blocks" in jax.tree_util.keystr(path) and leaf.ndim > 2 else leaf,
        make("decoder"),
    )
    np.testing.assert_allclose(logits(model, tokens), logits(doubled, tokens), atol=2e-4)
    places = shardings(model, Layout(jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))))
    assert jax.tree.structure(places) == jax.tree.structure(model)


def test_mesh_axis(make, tokens):
    """An axis of its own for vocabularies: one line of the table."""
    axes = ("data", "fsdp", "tensor", "vocabulary")
    mesh = jax.make_mesh((2, 1, 2, 2), axes, axis_types=(jax.sharding.AxisType.Auto,) * 4)
    table = tuple({**dict(TABLE), "vocab": ("vocabulary",)}.items())
    layout = Layout(mesh, table)
    model = jax.device_put(make("decoder"), shardings(make("decoder"), layout))
    assert model.embedding.kernel.sharding.shard_shape(model.embedding.kernel.shape) == (16, 16)
    got = jax.jit(logits, static_argnums=2)(model, tokens, Call(layout))
    np.testing.assert_allclose(got, logits(make("decoder"), tokens), atol=2e-5)
