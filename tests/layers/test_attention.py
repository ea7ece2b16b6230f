"""The one attention call against loops over single scores in float64, and against torch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config.errors import UsageError
from jaxlm.layers.attention import blocks, chunked, splash, xla
from jaxlm.layers.attention.call import attend
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.contracts import Call
from jaxlm.parallel.layout import single_device
from tests.tiny import CALL, layout

ROWS, QUERIES, KEYS, HEADS, HEAD = 2, 9, 11, 4, 6


def oracle(q, k, v, q_pos, k_pos, q_seg, k_seg, *, causal, window, softcap, bias, scale):
    """Score by score; a query that sees nothing is left at zero."""
    out = np.zeros(q.shape)
    for row, i, head in np.ndindex(*q.shape[:3]):
        group = head // (q.shape[2] // k.shape[2])
        scores, values = [], []
        for j in range(k.shape[1]):
            if k_seg[row, j] == 0 or k_seg[row, j] != q_seg[row, i]:
                continue
            if causal and k_pos[row, j] > q_pos[row, i]:
                continue
            if window is not None and abs(k_pos[row, j] - q_pos[row, i]) >= window:
                continue
            score = scale * q[row, i, head] @ k[row, j, group]
            score = score if softcap is None else softcap * np.tanh(score / softcap)
            scores.append(score + (0 if bias is None else bias[row, head, i, j]))
            values.append(v[row, j, group])
        if scores:
            weights = np.exp(np.array(scores) - max(scores))
            out[row, i, head] = weights @ np.array(values) / weights.sum()
    return out


def arrays(kv_heads, seed=0):
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((ROWS, QUERIES, HEADS, HEAD)).astype(np.float32)
    k, v = rng.standard_normal((2, ROWS, KEYS, kv_heads, HEAD)).astype(np.float32)
    q_pos, k_pos = rng.permuted(np.tile(np.arange(20), (ROWS, 1)), axis=1)[:, :QUERIES], np.tile(np.arange(KEYS), 2)
    return q, k, v, q_pos, k_pos.reshape(ROWS, KEYS)


@pytest.mark.parametrize(
    ("kv_heads", "causal", "window", "softcap", "packed", "biased"),
    [
        (4, True, None, None, False, False),
        (2, True, 3, None, True, False),
        (1, False, 4, 2.0, True, True),
        (2, False, None, 1.5, True, False),
    ],
)
def test_every_score_by_hand(kv_heads, causal, window, softcap, packed, biased):
    q, k, v, q_pos, k_pos = arrays(kv_heads)
    rng = np.random.default_rng(1)
    q_seg = rng.integers(0, 3, (ROWS, QUERIES)) if packed else np.ones((ROWS, QUERIES), int)
    k_seg = rng.integers(0, 3, (ROWS, KEYS)) if packed else np.ones((ROWS, KEYS), int)
    bias = rng.standard_normal((ROWS, HEADS, QUERIES, KEYS)).astype(np.float32) if biased else None
    wanted = oracle(
        *(x.astype(np.float64) for x in (q, k, v)), q_pos, k_pos, q_seg, k_seg,
        causal=causal, window=window, softcap=softcap, bias=bias, scale=HEAD**-0.5,
    )  # fmt: skip
    mask = Mask(*(jnp.asarray(x) for x in (q_pos, k_pos, q_seg, k_seg)), causal, window)
    got = attend(
        *(jnp.asarray(x) for x in (q, k, v)), mask=mask, bias=None if bias is None else jnp.asarray(bias),
        softcap=softcap, call=CALL,
    )  # fmt: skip
    seen = np.asarray(mask.dense()).any(axis=-1)
    assert seen.any()
    if packed:
        assert not seen.all()
    np.testing.assert_allclose(np.asarray(got)[seen], wanted[seen], atol=2e-6)
    assert np.isfinite(got).all(), "a query that sees nothing must not be NaN"


def test_a_given_scale_replaces_the_default():
    q, k, v, q_pos, k_pos = arrays(2)
    ones = (jnp.ones((ROWS, QUERIES), int), jnp.ones((ROWS, KEYS), int))
    mask = Mask(jnp.asarray(q_pos), jnp.asarray(k_pos), *ones)
    args = [jnp.asarray(x) for x in (q, k, v)]
    wanted = attend(2 * HEAD**0.5 * args[0], *args[1:], mask=mask, call=CALL)
    np.testing.assert_allclose(attend(*args, mask=mask, scale=2.0, call=CALL), wanted, atol=2e-6)


def test_an_unknown_backend_is_refused_with_the_choices():
    q, k, v, q_pos, k_pos = (jnp.asarray(x) for x in arrays(4))
    mask = Mask(q_pos, k_pos, jnp.ones_like(q_pos), jnp.ones_like(k_pos))
    with pytest.raises(UsageError, match=r"'flash': choose one of auto, all_to_all, .*, xla"):
        attend(q, k, v, mask=mask, call=Call(single_device(), attention="flash"))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_torch_agrees(kv_heads):
    torch = pytest.importorskip("torch")
    q, k, v, q_pos, k_pos = arrays(kv_heads)
    seen = (k_pos[:, None] <= q_pos[:, :, None]) & (np.abs(q_pos[:, :, None] - k_pos[:, None]) < 8)
    seen |= (np.arange(KEYS) == 0)[None, None]
    ones = [jnp.ones(x.shape, int) for x in (q_pos, k_pos)]
    bias = jnp.where(jnp.asarray(seen), 0.0, -1e9)[:, None].repeat(HEADS, axis=1)
    mask = Mask(jnp.asarray(q_pos), jnp.asarray(k_pos), *ones, causal=False)
    got = attend(*(jnp.asarray(x) for x in (q, k, v)), mask=mask, bias=bias, call=CALL)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *(torch.tensor(x).transpose(1, 2) for x in (q, k, v)),
        attn_mask=torch.tensor(seen)[:, None],
        enable_gqa=True,
    )
    np.testing.assert_allclose(got, wanted.transpose(1, 2).numpy(), atol=2e-6)


@pytest.mark.parametrize(("window", "softcap", "biased"), [(None, None, False), (3, None, False), (5, 2.0, True)])
def test_blocks_agree_with_every_score_at_once(window, softcap, biased, monkeypatch):
    """Values and gradients, over packed rows that are no multiple of a block."""
    monkeypatch.setattr(blocks, "SMALLEST", 4)
    length = QUERIES
    rng = np.random.default_rng(2)
    q = jnp.asarray(rng.standard_normal((ROWS, length, HEADS, HEAD)), jnp.float32)
    k, v = jnp.asarray(rng.standard_normal((2, ROWS, length, 2, HEAD)), jnp.float32)
    bias = jnp.asarray(rng.standard_normal((ROWS, HEADS, length, length)), jnp.float32) if biased else None
    segments = jnp.asarray([[1] * 5 + [2] * 4, [1] * 7 + [0] * 2])
    positions = jnp.asarray([[*range(5), *range(4)], [*range(7), 0, 0]])
    mask = Mask(positions, positions, segments, segments, True, window, aligned=True)
    real = (segments > 0)[..., None, None]

    def loss(arrays, backend):
        call = dataclasses.replace(CALL, attention=backend)
        mixed = jnp.where(real, attend(*arrays, mask=mask, bias=bias, softcap=softcap, call=call), 0.0)
        return jnp.sum(jnp.sin(mixed) * jnp.arange(mixed.size).reshape(mixed.shape)), mixed

    (_, got), gradients = jax.value_and_grad(loss, has_aux=True)((q, k, v), "blocks")
    (_, wanted), wanted_gradients = jax.value_and_grad(loss, has_aux=True)((q, k, v), "xla")
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    for one, other in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6 * float(jnp.abs(other).max()))


@pytest.mark.parametrize(
    ("window", "softcap", "causal", "prefix"),
    [(None, None, True, None), (3, 2.0, True, None), (None, 1.5, False, None), (6, None, True, (4, 2))],
)
@pytest.mark.parametrize("queries", [12, 8])
def test_chunked_agrees_with_every_score_at_once(window, softcap, causal, prefix, queries, monkeypatch):
    """Values and gradients, in any order of positions, some pieces skipped, some queries seeing nothing."""
    monkeypatch.setattr(chunked, "PIECE", 4)
    monkeypatch.setattr(chunked, "SMALLEST", 4)
    rng = np.random.default_rng(3)
    q = jnp.asarray(rng.standard_normal((ROWS, queries, HEADS, HEAD)), jnp.float32)
    k, v = jnp.asarray(rng.standard_normal((2, ROWS, 12, 2, HEAD)), jnp.float32)
    positions = jnp.asarray([[*range(5), *range(7)], [11, *range(11)]])
    segments = jnp.asarray([[1] * 5 + [2] * 7, [1] * 10 + [0] * 2])
    mask = Mask(positions[:, :queries], positions, segments[:, :queries], segments, causal, window)
    if prefix is not None:
        mask = mask.replace(prefix=jnp.asarray([0, *prefix])[segments[:, :queries]])
    sees = np.asarray(mask.dense()).any(axis=-1)[..., None, None]

    def loss(arrays, backend):
        call = dataclasses.replace(CALL, attention=backend)
        raw = attend(*arrays, mask=mask, softcap=softcap, call=call)
        mixed = jnp.where(sees, raw, 0.0)
        return jnp.sum(jnp.sin(mixed) * jnp.arange(mixed.size).reshape(mixed.shape)), raw

    (_, got), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)((q, k, v), "chunked")
    (_, wanted), wanted_gradients = jax.value_and_grad(loss, has_aux=True)((q, k, v), "xla")
    np.testing.assert_allclose(got, np.where(sees, wanted, 0.0), atol=1e-6)
    assert sees.all() == (queries == 8), "some queries see nothing"
    for one, other in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6 * float(jnp.abs(other).max()))


def test_chunked_keeps_no_piece_where_it_is_recomputed():
    """Under `jax.checkpoint`, in a loop over layers, memory grows with the length and not with its square."""

    def bytes_of(length):
        ones = jnp.ones((1, length), int)
        mask = Mask(jnp.arange(length)[None], jnp.arange(length)[None], ones, ones, True, aligned=True)

        def layers(x):
            block = jax.checkpoint(lambda x: chunked.attend(x, x, x, mask, softcap=None, scale=0.5))
            return jnp.sum(jax.lax.scan(lambda x, _: (x + block(x), None), x, length=2)[0])

        x = jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)
        return jax.jit(jax.grad(layers)).lower(x).compile().memory_analysis().temp_size_in_bytes

    short, long = bytes_of(1024), bytes_of(4096)
    assert long - short < 4 * 8 * 512 * 512  # a few pieces of scores; all would be 60 more


@pytest.mark.parametrize(
    ("backend", "mesh"),
    [
        ("ring", {"context": 8}),
        ("ring", {"context": 2, "tensor": 2}),
        ("all_to_all", {"context": 2}),
        ("all_to_all", {"context": 2, "tensor": 2}),
    ],
)
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (5, 2.0)])
def test_rows_spread_over_devices(backend, mesh, window, softcap):
    """Values and gradients equal those of one device; positions are dealt out as the layout says."""
    where, length = layout(**mesh), 32
    rng = np.random.default_rng(4)
    q = jnp.asarray(rng.standard_normal((8, length, HEADS, HEAD)), jnp.float32)
    k, v = jnp.asarray(rng.standard_normal((2, 8, length, 4, HEAD)), jnp.float32)
    segments = jnp.asarray(np.where(np.arange(length)[None] < rng.integers(5, 27, (8, 1)), 1, 2))
    positions = jnp.asarray(np.tile(np.arange(length), (8, 1)))
    order = where.order(length)
    assert sorted(order) == list(range(length))
    assert list(order) != list(range(length))

    def loss(arrays, segments, positions, call):
        mask = Mask(positions, positions, segments, segments, True, window, aligned=True)
        mixed = attend(*arrays, mask=mask, softcap=softcap, call=call)
        return jnp.sum(jnp.sin(mixed) * (1 + positions[..., None, None])), mixed

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=3)
    one = dataclasses.replace(CALL, attention="xla")
    (_, wanted), gradients = run((q, k, v), segments, positions, one)
    dealt = [x[:, order] for x in (q, k, v, segments, positions)]
    call = Call(where, attention=backend)
    (_, got), others = run(tuple(dealt[:3]), *dealt[3:], call)
    np.testing.assert_allclose(got, wanted[:, order], atol=1e-6)
    for other, gradient in zip(others, gradients, strict=True):
        np.testing.assert_allclose(other, gradient[:, order], atol=3e-6 * float(jnp.abs(gradient).max()))


@pytest.mark.parametrize(
    ("backend", "mesh", "message"),
    [
        ("ring", {}, r"'ring': it is for where\.mesh\.context > 1"),
        ("xla", {"context": 2}, "spreads rows over devices"),
        ("splash", {}, "runs on TPUs only"),
        ("chunked", {}, r"1021 positions have no divisor from 32 to 512"),
        ("all_to_all", {"context": 8}, r"4 heads of each device do not divide among 8 shards"),
    ],
)
def test_a_backend_that_does_not_take_it_says_why(backend, mesh, message):
    length = 1021 if backend == "chunked" else 32
    q = jnp.ones((8, length, HEADS, HEAD))
    ones = jnp.ones((8, length), int)
    mask = Mask(ones, ones, ones, ones, aligned=True)
    with pytest.raises(UsageError, match=message):
        attend(q, q, q, mask=mask, call=Call(layout(**mesh), attention=backend))


@pytest.mark.parametrize(
    ("window", "softcap", "kv_heads", "head", "causal"),
    [(None, None, 2, 72, True), (100, 20.0, 1, 128, True), (None, None, 2, 64, False), (100, 20.0, 1, 64, False)],
)
def test_splash_agrees_with_every_score_at_once(window, softcap, kv_heads, head, causal):
    """Values and gradients of the TPU kernel, interpreted; heads need not be whole vectors."""
    length = 256 if causal or window is None else 384  # of three blocks, some of which see nothing of each other
    rng = np.random.default_rng(5)
    q = jnp.asarray(rng.standard_normal((2, length, 2, head)), jnp.float32)
    k, v = jnp.asarray(rng.standard_normal((2, 2, length, kv_heads, head)), jnp.float32)
    segments = jnp.asarray(np.where(np.arange(length)[None] < np.asarray([[90], [length]]), 1, 2))
    positions = jnp.tile(jnp.arange(length)[None], (2, 1))
    mask = Mask(positions, positions, segments, segments, causal, window, aligned=True)
    assert splash.refusal(q, mask, None) == ""
    assert "itself" in splash.refusal(q, dataclasses.replace(mask, aligned=False), None)
    more = {"softcap": softcap, "scale": head**-0.5}

    def loss(arrays, run):
        mixed = run(*arrays)
        return jnp.sum(jnp.sin(mixed)), mixed

    def kernel(q, k, v):
        return splash.attend(q, k, v, mask, interpret=True, **more)

    def plain(q, k, v):
        return xla.attend(q, k, v, mask=mask, bias=None, **more)

    (_, got), gradients = jax.value_and_grad(loss, has_aux=True)((q, k, v), kernel)
    (_, wanted), wanted_gradients = jax.value_and_grad(loss, has_aux=True)((q, k, v), plain)
    np.testing.assert_allclose(got, wanted, atol=2e-5)
    for one, other in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 * float(jnp.abs(other).max()))
