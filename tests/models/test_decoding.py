"""Prefill and decode in uneven chunks give what the whole gives at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Tokens
from tests.tiny import CALL, KINDS, random_ids, random_model, tokens

NAMES = ("decoder", "wired", "encoder_decoder", "rwkv4", "rwkv7", pytest.param("rwkv6", marks=pytest.mark.nightly))
ROWS, LENGTH, CHUNKS = 3, 10, (5, 1, 3, 1)


@functools.cache
def compiled(name):
    model = random_model(KINDS[name])

    def run(inputs, cache, memory):
        output = model(inputs, CALL, cache=cache, memory=memory)
        return model.logits(output.hidden, CALL), output.cache

    return model, jax.jit(run, donate_argnums=1)


def memory_for(name, model, rows):
    if name != "encoder_decoder":
        return None
    segments = np.ones((rows, 6), int)
    segments[0, 4:] = 0
    return model.encode(tokens(random_ids(rows, 6, 5), segments), CALL)


def cut(inputs, begin, end):
    return jax.tree.map(lambda x: x[:, begin:end], inputs)


@pytest.mark.parametrize("name", NAMES)
def test_uneven_chunks(name):
    model, run = compiled(name)
    inputs, memory = tokens(random_ids(ROWS, LENGTH)), memory_for(name, model, ROWS)
    whole, _ = run(inputs, None, memory)
    cache, parts, begin = model.empty_cache(ROWS, LENGTH, CALL), [], 0
    for count in CHUNKS:
        logits, cache = run(cut(inputs, begin, begin + count), cache, memory if begin == 0 else None)
        parts.append(logits)
        begin += count
    assert begin == LENGTH
    np.testing.assert_array_equal(cache.lengths, [LENGTH] * ROWS)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=2e-5 * max(1, np.std(whole)))


@pytest.mark.parametrize("name", NAMES)
def test_ragged_prompts_padded_on_the_right(name):
    """Prompts of 5, 2 and 3 tokens in one prefill, then four more tokens each."""
    model, run = compiled(name)
    ids, prompts, more = random_ids(ROWS, LENGTH), np.array([5, 2, 3]), 4
    memory = memory_for(name, model, ROWS)
    whole, _ = run(tokens(ids), None, memory)
    first = tokens(ids[:, :5] * (np.arange(5) < prompts[:, None]), np.arange(5) < prompts[:, None])
    logits, cache = run(first, model.empty_cache(ROWS, LENGTH, CALL), memory)
    np.testing.assert_array_equal(cache.lengths, prompts)
    error = [np.abs(logits[row, : prompts[row]] - whole[row, : prompts[row]]).max() for row in range(3)]
    for step in range(more):
        at = (prompts + step)[:, None]
        new = Tokens(*(jnp.asarray(x, jnp.int32) for x in (np.take_along_axis(ids, at, 1), np.ones_like(at), at)))
        logits, cache = run(new, cache, None)
        error.append(np.abs(np.asarray(logits)[:, 0] - np.asarray(whole)[np.arange(3), at[:, 0]]).max())
    assert max(error) <= 2e-5 * max(1, np.std(whole))


def test_a_reordered_cache_continues_the_other_row():
    model, run = compiled("decoder")
    inputs = tokens(random_ids(ROWS, LENGTH))
    whole, _ = run(inputs, None, None)
    _, cache = run(cut(inputs, 0, 5), model.empty_cache(ROWS, LENGTH, CALL), None)
    others = jnp.array([1, 0, 1])
    logits, _ = run(jax.tree.map(lambda x: x[others], cut(inputs, 5, 6)), cache.reorder(others), None)
    np.testing.assert_allclose(logits, whole[others, 5:6], atol=2e-5 * max(1, np.std(whole)))


def test_unstacked_layers_decode_the_same():
    model, run = compiled("decoder")
    inputs = tokens(random_ids(ROWS, LENGTH))
    flat = dataclasses.replace(model, blocks=model.blocks.unstacked())
    assert flat.blocks.depth == model.blocks.depth == 4
    got = jax.jit(lambda m: m.logits(m(inputs, CALL, cache=m.empty_cache(ROWS, LENGTH, CALL)).hidden, CALL))(flat)
    wanted, _ = run(inputs, None, None)
    np.testing.assert_allclose(got, wanted, atol=2e-5 * max(1, np.std(wanted)))


def test_what_a_model_cannot_do_it_refuses_by_name():
    inputs = tokens(random_ids(1, 2))
    encoder, decoder, rwkv = (random_model(KINDS[name]) for name in ("encoder", "decoder", "rwkv7"))
    with pytest.raises(UsageError, match="does not generate"):
        encoder.empty_cache(1, 2, CALL)
    with pytest.raises(UsageError, match="neither a cache nor a memory"):
        encoder(inputs, CALL, cache=decoder.empty_cache(1, 2, CALL))
    for model in (decoder, rwkv):
        with pytest.raises(UsageError, match="has no encoder"):
            model.encode(inputs, CALL)
    model = random_model(KINDS["encoder_decoder"])
    for cache in (None, model.empty_cache(1, 2, CALL)):
        with pytest.raises(UsageError, match="needs the memory"):
            model(inputs, CALL, cache=cache)
    memory = encoder.encode(inputs, CALL)
    for model in (decoder, rwkv):
        with pytest.raises(UsageError, match="memory"):
            model(inputs, CALL, memory=memory)
