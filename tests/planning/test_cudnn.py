"""What attention's backward pass takes beside its results is in the program that is planned."""

import jax
import jax.numpy as jnp
import pytest

from jaxlm.layers.attention import cudnn as attention
from jaxlm.layers.attention.mask import Mask
from jaxlm.planning import cudnn

ROWS, LENGTH, HEADS = 2, 256, 4


def test_the_workspace_that_one_h100_has_taken():
    found = cudnn.workspace((12 * 16, 32, 4096), 64, grouped=True)
    assert 0 <= 12_985_615_104 - found < 50_000


@pytest.mark.parametrize("kv_heads", [HEADS, 2])
@pytest.mark.parametrize("head", [64, 128])
def test_it_is_in_the_program(kv_heads, head):
    q = jax.ShapeDtypeStruct((ROWS, LENGTH, HEADS, head), jnp.bfloat16)
    k = jax.ShapeDtypeStruct((ROWS, LENGTH, kv_heads, head), jnp.bfloat16)
    tokens = jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32)

    def loss(q, k, v, tokens):
        mask = Mask(tokens, tokens, tokens, tokens, aligned=True)
        return jnp.sum(attention.attend(q, k, v, mask, scale=1.0).astype(jnp.float32))

    with cudnn.assumed():
        traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, k, tokens)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    slots = ROWS * attention.DOCUMENTS
    size = cudnn.workspace((slots, HEADS, LENGTH), head, grouped=kv_heads != HEADS)
    assert size == 4 * slots * HEADS * LENGTH * (head + 1 + (kv_heads != HEADS) * head)
    calls = [line for line in text.splitlines() if "fmha" in line]
    assert [f"tensor<{size}xui8>" in line for line in calls] == ["Backward" in line for line in calls]
    assert len(calls) == 2
