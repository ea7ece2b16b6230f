"""The one attention call against loops over single scores in float64, and against torch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config.errors import UsageError
from jaxlm.layers.attention import blocks
from jaxlm.layers.attention.call import attend
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.contracts import Call
from jaxlm.parallel.layout import single_device
from tests.tiny import CALL

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
    with pytest.raises(UsageError, match=r"'flash'.*auto, xla"):
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
