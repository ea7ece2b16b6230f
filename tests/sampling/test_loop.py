"""The loop against full forwards without a cache, and rows against themselves alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.models.build import build
from jaxlm.parallel.layout import single_device
from jaxlm.sampling import loop
from jaxlm.sampling.logits import Settings, sample_keys

CALL = Call(layout=single_device())
VOCAB = 61
BLOCK = config.Block(attention=config.Attention(heads=4, kv_heads=2, head=8), mlp=config.Gated(width=48))
PLAIN = config.Block(attention=config.Attention(heads=2, kv_heads=2, head=8), mlp=config.Plain(width=48))
WINDOW = config.Block(attention=config.Attention(heads=2, kv_heads=1, head=8, window=5), mlp=config.Plain(width=48))
MODELS = {
    "decoder": config.Decoder(vocab=VOCAB, embed=32, layers=2, block=BLOCK, head=config.Untied()),
    "pattern": config.Decoder(
        vocab=VOCAB,
        embed=32,
        layers=2,
        block=config.Pattern(prefix=(WINDOW,), period=(BLOCK,)),
        position=config.Learned(length=128),
        head=config.Untied(),
    ),
    "encoder_decoder": config.EncoderDecoder(
        vocab=VOCAB, embed=32, encoder_layers=1, decoder_layers=2, block=PLAIN
    ),
    "rwkv": config.Rwkv4(vocab=VOCAB, embed=32, layers=2, width=64),
}
LENGTHS = (5, 1, 9, 3)
ROWS = len(LENGTHS)
TOKENS = 56
"""Enough that all tests share the programs of 64 tokens."""


@functools.cache
def model_of(kind):
    """Larger weights than the initial ones, so that the best token changes from place to place."""
    make = jax.jit(lambda key: build(MODELS[kind], key))
    rng = np.random.default_rng(2)
    model = jax.tree.map(
        lambda x: x + jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), make(jax.random.key(1))
    )
    return loop.unstacked(model)


def tokens_of(rows, width=None):
    """Right-padded rows."""
    width = max(map(len, rows)) if width is None else width
    ids = np.stack([np.pad(row, (0, width - len(row))) for row in rows]).astype(np.int32)
    segments = np.stack([np.arange(width) < len(row) for row in rows]).astype(np.int32)
    return Tokens(*map(jnp.asarray, (ids, segments, np.arange(width, dtype=np.int32) * segments)))


def prompts(seed=3):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, VOCAB, size=n) for n in LENGTHS]


def memory_of(model, kind, rows):
    """A source of its own for each row, made from the row's first token so that permuting rows permutes it."""
    if kind != "encoder_decoder":
        return None
    sources = [(row[0] + np.arange(4 + row[0] % 4)) % VOCAB for row in rows]
    return encode(model, tokens_of(sources, width=7))


@jax.jit
def encode(model, source):
    return model.encode(source, CALL)


def keys_of(rows):
    return sample_keys(jnp.asarray([int(row.sum()) for row in rows]), jnp.zeros(len(rows), jnp.int32))


def run(kind, model, rows, *, tokens=TOKENS, stop=None, settings=None, **more):
    return loop.generate(
        model,
        tokens_of(rows, width=max(map(len, [*rows, prompts()[2]]))),
        settings or Settings.of(len(rows), temperature=0.9, top_p=0.95),
        keys_of(rows),
        tokens=tokens,
        stop=stop,
        call=CALL,
        memory=memory_of(model, kind, rows),
        **more,
    )


@jax.jit
def forward(model, tokens, memory):
    """Logits of a full forward without a cache."""
    return model.logits(model(tokens, CALL, memory=memory).hidden, CALL)


def full_logits(kind, model, rows, got):
    """At every place of the prompts with what was drawn after them."""
    longer = [np.concatenate([row, ids[:n]]) for row, ids, n in zip(rows, got.ids, got.lengths, strict=True)]
    return np.asarray(forward(model, tokens_of(longer, width=80), memory_of(model, kind, rows)))


@pytest.mark.parametrize("kind", MODELS)
def test_greedy_is_the_argmax_of_a_full_forward(kind):
    model, rows = model_of(kind), prompts()
    got = run(kind, model, rows, tokens=64, settings=Settings.of(ROWS, temperature=0.0))
    assert got.ids.shape == (ROWS, 64)
    logits = full_logits(kind, model, rows, got)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    for i, (row, ids) in enumerate(zip(rows, np.asarray(got.ids), strict=True)):
        places = len(row) - 1 + np.arange(64)
        np.testing.assert_array_equal(logits[i, places].argmax(-1), ids)
        np.testing.assert_allclose(got.log_probabilities[i], log_p[i, places, ids], atol=2e-5)
    assert len(np.unique(got.ids)) > 8
    np.testing.assert_allclose(got.processed_log_probabilities, 0.0, atol=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_a_row_depends_on_nothing_but_itself(kind):
    model, rows = model_of(kind), prompts()
    batch = run(kind, model, rows)
    order = [2, 0, 3, 1]
    permuted = run(kind, model, [rows[i] for i in order])
    np.testing.assert_array_equal(permuted.ids, np.asarray(batch.ids)[order])
    for i, row in enumerate(rows):
        alone = run(kind, model, [row])
        np.testing.assert_array_equal(alone.ids[0], batch.ids[i])
        np.testing.assert_allclose(alone.log_probabilities[0], batch.log_probabilities[i], atol=2e-5)
    assert len({tuple(ids) for ids in np.asarray(batch.ids).tolist()}) == ROWS


@pytest.mark.parametrize("kind", MODELS)
def test_log_probabilities_are_those_of_a_full_forward(kind):
    model, rows = model_of(kind), prompts()
    got = run(kind, model, rows, settings=Settings.of(ROWS, temperature=0.7))
    logits = full_logits(kind, model, rows, got)
    for i, (row, ids) in enumerate(zip(rows, np.asarray(got.ids), strict=True)):
        places = len(row) - 1 + np.arange(len(ids))
        raw = jax.nn.log_softmax(logits[i])[places, ids]
        tempered = jax.nn.log_softmax(logits[i] / 0.7)[places, ids]
        np.testing.assert_allclose(got.log_probabilities[i], raw, atol=2e-5)
        np.testing.assert_allclose(got.processed_log_probabilities[i], tempered, atol=5e-5)
        assert np.abs(raw - tempered).max() > 0.05


@pytest.mark.parametrize("kind", ["decoder", "rwkv"])
def test_going_on_from_half_of_the_text_gives_the_other_half(kind):
    model, rows = model_of(kind), prompts()
    whole = run(kind, model, rows)
    halves = [np.concatenate([row, np.asarray(ids[:7])]) for row, ids in zip(rows, whole.ids, strict=True)]
    settings = Settings.of(ROWS, temperature=0.9, top_p=0.95)
    rest = loop.generate(model, tokens_of(halves), settings, keys_of(rows), tokens=TOKENS - 7, stop=None, call=CALL)
    np.testing.assert_array_equal(rest.ids, whole.ids[:, 7:])


def stop_of(free):
    """A token that ends the first row within 7 tokens, and another row not before its 18th."""
    first, *others = np.asarray(free.ids)
    return next(int(token) for token in first[:7] if any(token not in other[:17] for other in others))


@pytest.mark.parametrize("kind", MODELS)
def test_done_rows_write_padding_and_others_go_on(kind):
    model, rows = model_of(kind), prompts()
    free = run(kind, model, rows)
    stop = stop_of(free)
    got = run(kind, model, rows, stop=stop, pad=60)
    for i in range(ROWS):
        ids = np.asarray(free.ids[i])
        length = int(np.argmax(ids == stop)) + 1 if (ids == stop).any() else len(ids)
        assert int(got.lengths[i]) == length
        assert bool(got.stopped[i]) == bool((ids == stop).any())
        np.testing.assert_array_equal(got.ids[i, :length], ids[:length])
        np.testing.assert_array_equal(got.ids[i, length:], 60)
        np.testing.assert_array_equal(got.log_probabilities[i, length:], 0.0)
    assert int(got.lengths[0]) <= 7
    assert int(got.lengths.max()) > 7
    assert bool(got.done.all())


def test_done_rows_keep_position_and_cache():
    model, rows = model_of("decoder"), prompts()
    stop = stop_of(run("decoder", model, rows))
    request = loop.Request.of(
        Settings.of(ROWS, temperature=0.9, top_p=0.95), keys_of(rows), tokens=TOKENS, stop=stop
    )
    state = loop.start(model, tokens_of(rows), request, tokens=TOKENS, call=CALL)
    state = loop.continue_(model, request, state, 6, call=CALL)
    assert bool(state.done[0])
    held, place = int(state.cache.lengths[0]), int(state.last.positions[0, 0])
    before = jax.tree.map(lambda x: np.array(x[0]), state.cache.layers[0].attention.view())
    state = loop.continue_(model, request, state, 10, call=CALL)
    after = state.cache.layers[0].attention.view()
    assert (int(state.cache.lengths[0]), int(state.last.positions[0, 0])) == (held, place)
    assert held == len(rows[0]) + int(state.lengths[0]) - 1
    np.testing.assert_array_equal(after.segments[0] > 0, np.arange(after.segments.shape[1]) < held)
    np.testing.assert_array_equal(after.keys[0, :held], before.keys[:held])
    np.testing.assert_array_equal(state.cache.lengths, jnp.array(LENGTHS) + state.lengths - 1)
    assert int(state.lengths.max()) == 17


@pytest.mark.parametrize("kind", MODELS)
def test_chunks_and_one_loop_agree(kind):
    model, rows = model_of(kind), prompts()
    whole = run(kind, model, rows, tokens=TOKENS, stop=7)
    request = loop.Request.of(Settings.of(ROWS, temperature=0.9, top_p=0.95), keys_of(rows), tokens=TOKENS, stop=7)
    memory = memory_of(model, kind, rows)
    state = loop.start(model, tokens_of(rows), request, tokens=TOKENS, call=CALL, memory=memory)
    for steps in (1, 2, 30, 40):
        state = loop.continue_(model, request, state, steps, call=CALL)
    jax.tree.map(np.testing.assert_array_equal, loop.generated(state, TOKENS), whole)
    if memory is not None:
        jax.block_until_ready(memory.positions)


def test_settings_and_lengths_share_programs():
    model, rng = model_of("decoder"), np.random.default_rng(0)
    rows = prompts()
    run("decoder", model, rows)
    counts = loop._start._cache_size(), loop._continue._cache_size()
    for trial in range(50):
        settings = Settings.of(
            ROWS,
            temperature=float(rng.choice([0.0, rng.uniform(0.1, 2.0)])),
            top_k=int(rng.integers(0, 80)),
            top_p=float(rng.uniform(0.01, 1.0)),
            min_p=float(rng.uniform(0.0, 1.0)),
        )
        rows = [rng.integers(1, VOCAB, size=n) for n in rng.integers(1, 9, size=ROWS)]
        run("decoder", model, rows, settings=settings, stop=trial % VOCAB, tokens=int(rng.integers(56, 60)))
    assert (loop._start._cache_size(), loop._continue._cache_size()) == counts
    run("decoder", model, [*rows[:-1], np.arange(1, 18)])
    assert loop._start._cache_size() == counts[0] + 1


def test_one_token_does_not_enter_the_loop(monkeypatch):
    model, rows = model_of("decoder"), prompts()
    many = run("decoder", model, rows)
    monkeypatch.setattr(loop, "_continue", None)
    one = run("decoder", model, rows, tokens=1)
    np.testing.assert_array_equal(one.ids, many.ids[:, :1])
    assert bool(one.done.all())
    with pytest.raises(TypeError):
        run("decoder", model, rows, tokens=2)


def test_an_empty_row_stays_empty():
    model, rows = model_of("decoder"), prompts()
    full = tokens_of(rows)
    tokens = dataclasses.replace(full, segments=full.segments.at[1].set(0))
    settings = Settings.of(ROWS, temperature=0.9, top_p=0.95)
    got = loop.generate(model, tokens, settings, keys_of(rows), tokens=TOKENS, stop=None, call=CALL)
    want = run("decoder", model, rows)
    np.testing.assert_array_equal(got.lengths, [TOKENS, 0, TOKENS, TOKENS])
    np.testing.assert_array_equal(got.ids[jnp.array([0, 2, 3])], want.ids[jnp.array([0, 2, 3])])


def test_the_samples_of_a_prompt_differ():
    model, tokens = model_of("decoder"), tokens_of([prompts()[2]] * ROWS)
    numbers = jnp.arange(ROWS)
    settings = Settings.of(ROWS, temperature=1.5)

    def first(keys):
        got = loop.generate(model, tokens, settings, keys, tokens=TOKENS, stop=None, call=CALL)
        return np.unique(got.ids[:, :2], axis=0)

    assert len(first(sample_keys(0 * numbers, numbers))) == ROWS
    assert len(first(sample_keys(0 * numbers, 0 * numbers))) == 1


def test_what_cannot_generate_says_so():
    rows = prompts()
    encoder = build(config.Encoder(vocab=VOCAB, embed=8, layers=1, block=PLAIN), jax.random.key(0))
    with pytest.raises(UsageError, match="an encoder predicts tokens in place"):
        run("encoder", encoder, rows)
    with pytest.raises(UsageError, match="needs the memory"):
        run("decoder", model_of("encoder_decoder"), rows)
    memory = memory_of(model_of("encoder_decoder"), "encoder_decoder", rows)
    with pytest.raises(UsageError, match="no memory"):
        jax.eval_shape(
            lambda model: loop.prefill(model, tokens_of(rows), CALL, memory, length=32), model_of("decoder")
        )
    with pytest.raises(UsageError, match="learned 128"):
        run("pattern", model_of("pattern"), rows, tokens=121)
    with pytest.raises(UsageError, match="at least 1"):
        run("decoder", model_of("decoder"), rows, tokens=0)
