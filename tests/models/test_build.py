"""Initial models: the right sizes, the same however they are stacked or sharded, safe to donate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.flops import parameters
from jaxlm.layers.axes import fitted, shardings
from jaxlm.layers.names import flatten
from jaxlm.models.build import build, build_sharded
from tests.tiny import CALL, GLOBAL, KINDS, LOCAL, NAMES, SIZES, layout, random_model

KEY = jax.random.key(3)


def test_layer_i_is_the_same_however_it_is_stacked():
    def layers(pattern):
        return build(config.Decoder(**SIZES, layers=6, block=pattern), KEY).blocks.layers()

    wanted = layers(GLOBAL)
    for one, two in zip(wanted, layers(config.Pattern((GLOBAL, GLOBAL), (GLOBAL,), (GLOBAL,))), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, two)
    kernels = [np.asarray(layer.attention.query.kernel) for layer in wanted]
    assert not any(np.array_equal(kernels[i], kernels[j]) for i in range(6) for j in range(i))


def test_sizes_of_the_random_numbers():
    model = build(config.Decoder(vocab=64, embed=32, layers=2, block=GLOBAL, head=config.Untied()), KEY)
    block = model.blocks.period[0]
    for leaf, std in [
        (model.embedding.kernel, 0.02),
        (model.head.kernel, 32**-0.5),
        (block.attention.query.kernel, 32**-0.5),
        (block.attention.out.kernel, (4 * 8) ** -0.5 * 4**-0.5),
        (block.mlp.gate.kernel, 32**-0.5),
        (block.mlp.down.kernel, 32**-0.5 * 4**-0.5),
    ]:
        assert abs(np.std(leaf) / std - 1) < 5 / np.sqrt(2 * leaf.size), "five standard deviations"
    for norm in (model.norm, block.attention_norm, block.mlp_norm):
        assert (np.asarray(norm.scale) == 1).all()


@pytest.mark.parametrize("mesh", [{"fsdp": 8}, {"fsdp": 2, "tensor": 2}])
def test_sharded_is_the_same_and_really_is_sharded(mesh):
    kind, where = config.Decoder(**SIZES, layers=2, block=GLOBAL), layout(**mesh)
    sharded = build_sharded(kind, KEY, where)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), sharded, build(kind, KEY))
    shards = {name: leaf.addressable_shards[0].data.shape for name, leaf in flatten(sharded).items()}
    fsdp, tensor = mesh["fsdp"], mesh.get("tensor", 1)
    assert shards["embedding.kernel"] == (64 // tensor, 16 // fsdp)
    assert shards["blocks.period.0.attention.query.kernel"] == (2, 16 // fsdp, 4 // tensor, 8)
    assert shards["blocks.period.0.attention.key.kernel"] == (2, 16 // fsdp, 2 // tensor, 8)
    assert shards["blocks.period.0.attention.out.kernel"] == (2, 4 // tensor, 8, 16 // fsdp)
    assert shards["blocks.period.0.mlp.down.kernel"] == (2, 32 // tensor, 16 // fsdp)


@pytest.mark.parametrize("name", NAMES)
def test_closed_forms_count_every_leaf(name):
    model = jax.eval_shape(lambda: build(KINDS[name], KEY))
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == parameters(KINDS[name])["total"]


def test_scores_that_are_not_divided_begin_as_those_that_are():
    """By queries that are as much smaller; scores that are divided by more than sqrt(head) stay as they are."""
    queries = {}
    for scale in (None, 1.0, 0.01):
        attention = config.Attention(4, 4, 16, scale=scale)
        kind = config.Decoder(**SIZES, layers=1, block=config.Block(attention, config.Gated(32)))
        queries[scale] = np.asarray(build(kind, KEY).blocks.layers()[0].attention.query.kernel)
    np.testing.assert_allclose(4.0 * queries[1.0], queries[None], rtol=1e-6)
    np.testing.assert_array_equal(queries[0.01], queries[None])


def test_norms_around_a_cross_attention():
    """A sandwich has six norms in a decoder's block; parallel branches have no place for a third."""

    def kind(wiring):
        block = config.Block(wiring=wiring)
        return config.EncoderDecoder(**SIZES, encoder_layers=2, decoder_layers=2, block=block)

    for wiring in (config.Sandwich(), config.ResPostNorm()):
        model = jax.eval_shape(lambda wiring=wiring: build(kind(wiring), KEY))
        assert sum(leaf.size for leaf in jax.tree.leaves(model)) == parameters(kind(wiring))["total"]
    for wiring in (config.Parallel(), config.ParallelTwoNorms()):
        with pytest.raises(UsageError, match=f"wiring={type(wiring).__name__}: cross-attention has no place"):
            jax.eval_shape(lambda wiring=wiring: build(kind(wiring), KEY))


def test_a_norm_over_all_heads_is_an_rms_norm():
    block = config.Block(config.Attention(qk_norm=config.AllHeads()))
    with pytest.raises(UsageError, match="qk_norm=all_heads: norm=LayerNorm is not; choose rms_norm"):
        jax.eval_shape(lambda: build(config.Decoder(**SIZES, block=block, norm=config.LayerNorm()), KEY))


@pytest.mark.parametrize("name", NAMES)
def test_every_leaf_has_a_place(name):
    model = jax.eval_shape(lambda: build(KINDS[name], KEY))
    places = flatten(shardings(model, fitted(layout(fsdp=2, tensor=2), model)))
    assert places.keys() == flatten(model).keys()
    matrices = [key for key in places if key.endswith(".kernel") and "position" not in key]
    assert all("fsdp" in str(places[key].spec) for key in matrices), "every matrix is stored in shards"


@pytest.mark.parametrize("name", ["decoder", "rwkv4"])
def test_no_two_arrays_share_a_buffer(name):
    """A model or a cache that holds one buffer twice cannot be donated."""
    kind = KINDS[name]
    for tree in (build(kind, KEY), random_model(kind).empty_cache(2, 3, CALL)):
        buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)]
        assert len(set(buffers)) == len(buffers)


def test_what_does_not_fit_is_refused_with_numbers():
    with pytest.raises(UsageError, match=r"model\.layers=4: .* prefix 1, period 2 and suffix 0"):
        build(config.Decoder(**SIZES, layers=4, block=config.Pattern((GLOBAL, LOCAL), (GLOBAL,))), KEY)
    with pytest.raises(UsageError, match=r"heads=4 is not a multiple of attention\.kv_heads=3"):
        build(config.Decoder(**SIZES, layers=1, block=config.Block(config.Attention(4, 3, 8))), KEY)
    with pytest.raises(TypeError, match="AdamW is not a model config"):
        build(config.AdamW(), KEY)


def test_parameters_take_the_precision():
    model = jax.eval_shape(lambda: build(KINDS["decoder"], KEY, config.PRECISIONS["bfloat16_all"]))
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("bfloat16")}
