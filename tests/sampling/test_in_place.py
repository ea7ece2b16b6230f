"""The cache is written where it lies, and holds what a plain loop would write."""

import re
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.layers.cache import Dense, View
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.models.build import build
from jaxlm.parallel.layout import single_device
from jaxlm.sampling import loop
from jaxlm.sampling.logits import Settings, sample_keys

CALL = Call(layout=single_device())
KV_HEADS, HEAD, SLOTS = 2, 16, 128
INSTRUCTION = re.compile(r"= [a-z]+[0-9]+\[([\d,]+)\]\S* (?:copy|transpose|copy-start)\(")


@pytest.fixture(autouse=True, scope="module")
def optimized():
    """As programs are compiled outside of tests."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def large_copies(compiled, elements):
    """Copies and transposes of at least so many elements, outside of the entry, which runs once."""
    body = compiled.as_text().split("\nENTRY ")[0]
    shapes = [[int(size) for size in found.group(1).split(",")] for found in INSTRUCTION.finditer(body)]
    return [shape for shape in shapes if prod(shape) >= elements]


@pytest.mark.parametrize(("rows", "heads"), [(1, 2 * KV_HEADS), (4, KV_HEADS)])
def test_no_cache_is_copied_for_a_token(rows, heads):
    attention = config.Attention(heads=heads, kv_heads=KV_HEADS, head=HEAD)
    block = config.Block(attention=attention, mlp=config.Plain(width=48))
    size = config.Decoder(vocab=61, embed=32, layers=1, block=block)
    make = jax.jit(lambda key: build(size, key), compiler_options={"xla_backend_optimization_level": 0})
    model = loop.unstacked(make(jax.random.key(0)))
    numbers = jnp.arange(rows)
    request = loop.Request.of(Settings.of(rows), sample_keys(numbers, numbers), tokens=100, stop=None)
    ones = jnp.ones((rows, 16), jnp.int32)
    prompts = Tokens(ones, ones, jnp.cumsum(ones, axis=1) - 1)
    state = jax.eval_shape(lambda: loop.start(model, prompts, request, tokens=100, call=CALL))
    cache = state.cache.layers[0].attention
    assert cache.keys.size == cache.values.size == rows * SLOTS * KV_HEADS * HEAD
    compiled = loop._continue.lower(model, request, state, jnp.int32(3), call=CALL).compile()
    assert large_copies(compiled, cache.keys.size) == []


def test_a_copy_in_a_loop_is_found():
    def body(index, carry):
        old, total = carry
        new = old.at[index].set(total)
        return new, total + jnp.dot(old[:, 0], new[:, 1])

    run = jax.jit(lambda x: jax.lax.fori_loop(0, 8, body, (x, jnp.float32(0))), donate_argnums=0)
    assert large_copies(run.lower(jnp.ones((64, 64))).compile(), 64 * 64)


@pytest.mark.parametrize(("rows", "new"), [(1, 1), (3, 1), (1, 4), (2, 5)])
def test_append_writes_from_each_rows_length_on(rows, new):
    rng = np.random.default_rng(0)
    slots, lengths = 6, np.array([2, 4, 6])[:rows].astype(np.int32)
    want = View(
        *(rng.standard_normal((rows, slots, 2, 3)).astype(np.float32) for _ in range(2)),
        *(rng.integers(0, 9, (rows, slots)).astype(np.int32) for _ in range(2)),
    )
    tokens = View(
        *(rng.standard_normal((rows, new, 2, 3)).astype(np.float32) for _ in range(2)),
        *(rng.integers(0, 9, (rows, new)).astype(np.int32) for _ in range(2)),
    )
    cache = Dense.full(jax.tree.map(jnp.array, want))
    new_tokens = jax.tree.leaves(jax.tree.map(jnp.asarray, tokens))
    got = cache.append(*new_tokens, jnp.asarray(lengths)).view()
    for old, more in zip(jax.tree.leaves(want), jax.tree.leaves(tokens), strict=True):
        for row in range(rows):
            for offset in range(new):
                if lengths[row] + offset < slots:
                    old[row, lengths[row] + offset] = more[row, offset]
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_a_lone_token_beyond_the_last_slot_is_dropped():
    empty = Dense.empty(1, 4, 2, 3, "float32")
    token = jnp.ones((1, 1, 2, 3)), jnp.ones((1, 1, 2, 3)), jnp.ones((1, 1), int), jnp.ones((1, 1), int)
    jax.tree.map(np.testing.assert_array_equal, empty.append(*token, jnp.array([4])), empty)
    assert int(empty.append(*token, jnp.array([3])).segments.sum()) == 1
