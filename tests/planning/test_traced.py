"""FLOPs of traced programs against counts by hand and the closed form of the model."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P
from planning.small import experiment

from jaxlm.config import Attention, Block, EncoderDecoder, Gated, NoPosition, Untied
from jaxlm.config.flops import flops_per_token
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.models import build
from jaxlm.parallel.layout import single_device
from jaxlm.planning import cudnn
from jaxlm.planning.traced import product_flops


def flops(f, *shapes):
    return product_flops(jax.jit(f).trace(*(jnp.zeros(shape) for shape in shapes)).jaxpr)


def test_products_and_batched_products():
    assert flops(lambda x, y: x @ y, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    assert flops(lambda x, y: jnp.einsum("bij,bkj->bik", x, y), (4, 3, 5), (4, 7, 5)) == 2 * 4 * 3 * 5 * 7
    assert flops(lambda x: x * 2, (3, 5)) == 0


def test_loops_multiply():
    def scanned(x):
        return jax.lax.scan(lambda c, _: (c @ c, None), x, length=6)[0]

    assert flops(scanned, (4, 4)) == 6 * 2 * 64


def test_the_dearest_branch_counts():
    def branching(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert flops(branching, (4, 4)) == 2 * 2 * 64


def test_recomputation_counts():
    def block(x):
        return jnp.sum(jnp.sin(x @ x) @ x)

    plain = flops(jax.grad(block), (4, 4))
    again = flops(jax.grad(jax.checkpoint(block)), (4, 4))
    assert again > plain


@pytest.mark.parametrize("axes", [{"a"}, {"a", "b"}])
def test_shares_of_devices_add_up(axes):
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    spec = P(tuple(sorted(axes)))
    sharded = jax.shard_map(
        lambda x: x @ x.T @ x, mesh=mesh, in_specs=spec, out_specs=spec, axis_names=axes, check_vma=False
    )
    rows = 16 // (4 if axes == {"a"} else 8)
    assert flops(sharded, (16, 3)) == 16 // rows * 2 * (2 * rows * rows * 3)


def test_kernels_count_their_estimate_or_their_grid():
    def kernel(x, o):
        o[...] = x[...] @ x[...]

    def call(**options):
        spec = pl.BlockSpec((8, 8), lambda i: (i, 0))
        out = jax.ShapeDtypeStruct((32, 8), jnp.float32)
        return pl.pallas_call(kernel, out, grid=(4,), in_specs=[spec], out_specs=spec, **options)

    assert flops(call(), (32, 8)) == 4 * 2 * 8**3
    estimate = pl.CostEstimate(flops=123, transcendentals=0, bytes_accessed=0)
    assert flops(call(cost_estimate=estimate), (32, 8)) == 123


def test_a_model_as_its_closed_form_has_it():
    model = dataclasses.replace(experiment().model, position=NoPosition())
    abstract = jax.eval_shape(lambda: build(model, jax.random.key(0)))
    call = Call(single_device(), attention="xla")

    def forward(model, ids):
        return model.logits(model(Tokens(ids, ids, ids), call).hidden, call)

    counted = product_flops(jax.jit(forward).trace(abstract, jax.ShapeDtypeStruct((4, 128), jnp.int32)).jaxpr)
    closed = flops_per_token(model, 128)
    # the plain backend computes all scores, of which the closed form halves the causal ones
    assert counted == pytest.approx(4 * 128 * (closed["forward"] + closed["attention"]), rel=1e-6)


@pytest.mark.parametrize("targets", [32, 128])
def test_an_encoder_decoder_as_its_closed_form_has_it(targets):
    """Targets are shorter than sources; keys and values of the memory are of every source token."""
    block = Block(Attention(heads=4, kv_heads=2, head=8), Gated(48))
    model = EncoderDecoder(
        vocab=64, embed=32, encoder_layers=2, decoder_layers=3, block=block, position=NoPosition(), head=Untied()
    )
    abstract = jax.eval_shape(lambda: build(model, jax.random.key(0)))
    call = Call(single_device(), attention="xla")

    def forward(model, source, ids):
        memory = model.encode(Tokens(source, source, source), call)
        return model.logits(model(Tokens(ids, ids, ids), call, memory=memory).hidden, call)

    rows = [jax.ShapeDtypeStruct((4, length), jnp.int32) for length in (128, targets)]
    counted = product_flops(jax.jit(forward).trace(abstract, *rows).jaxpr)
    closed = 4 * 128 * flops_per_token(model, 128, targets)["forward"]
    masked = 4 * 3 * 2 * 2 * targets * targets / 2 * 4 * 8
    assert counted == pytest.approx(closed + masked, rel=1e-6)


def test_ragged_products_count_every_slot_once():
    sizes = jnp.asarray([2, 0, 4], jnp.int32)
    assert flops(lambda x, w: jax.lax.ragged_dot(x, w, sizes), (6, 5), (3, 5, 7)) == 2 * 6 * 5 * 7
    over_slots = jax.lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), [0], [])
    assert flops(lambda x, y: jax.lax.ragged_dot_general(x, y, sizes, over_slots), (6, 5), (6, 7)) == 2 * 6 * 5 * 7


def test_attention_by_cudnn_counts():
    def attend(q):
        return jnp.sum(
            jax.nn.dot_product_attention(q, q, q, is_causal=True, implementation="cudnn").astype("float32")
        )

    q = jnp.zeros((2, 64, 3, 16), jnp.bfloat16)
    with cudnn.assumed():
        found = product_flops(jax.jit(jax.grad(attend)).trace(q).jaxpr)
    assert found == (2 + 5) * 2 * 2 * 3 * 64 * 64 * 16
