"""Attention by cuDNN: what it is told, against plain attention; the kernels are played by loops over documents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.layers.attention import cudnn, xla
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.remat import policy

ROWS, LENGTH, HEADS, KV_HEADS, HEAD = 2, 96, 4, 2, 8


def scores(q, k, q_seqlen, q_offsets, scale, window):
    """Scores [row, heads, query, key] of documents by themselves, and which tokens are in one, as cuDNN is told."""
    assert q_offsets.shape == (q.shape[0], q_seqlen.shape[1] + 1)
    place = jnp.arange(q.shape[1])[None, None]
    inside = (place >= q_offsets[:, :-1, None]) & (place < (q_offsets[:, :-1] + q_seqlen)[..., None])
    inside &= (q_seqlen > 0)[..., None]
    together = jnp.any(inside[..., :, None] & inside[..., None, :], axis=1)
    distance = place.swapaxes(1, 2) - place
    seen = together & (distance >= 0)
    if window is not None:
        seen &= distance < window
    k = jnp.repeat(k, q.shape[2] // k.shape[2], axis=2)
    return jnp.where(seen[:, None], jnp.einsum("rqnd,rknd->rnqk", q, k) * scale, -1e30), jnp.any(inside, axis=1)


def slots(seqlen, offsets):
    """Row and first token of every document that is there, in order."""
    rows, numbers = np.nonzero(np.asarray(seqlen) > 0)
    return [(row, int(offsets[row, n]), int(seqlen[row, n])) for row, n in zip(rows, numbers, strict=True)]


def played(
    q, k, v, bias, mask, q_seqlen, kv_seqlen, q_offsets, kv_offsets, *, scale, mask_type, return_residual, **window
):
    """What cuDNN documents of packed rows: each document by itself, and nothing defined outside of them."""
    assert (bias, mask, return_residual) == (None, None, True)
    assert mask_type is cudnn.MaskType.PADDING_CAUSAL
    assert q_seqlen is kv_seqlen
    assert q_offsets is kv_offsets
    logits, inside = scores(q, k, q_seqlen, q_offsets, scale, window["sliding_window_length"])
    mixed = jnp.einsum("rnqk,rknd->rqnd", jax.nn.softmax(logits, -1), jnp.repeat(v, q.shape[2] // v.shape[2], 2))

    def kept(normalizers, seqlen, offsets):
        found = np.full((q_seqlen.size, q.shape[2], q.shape[1]), np.nan, np.float32)
        for slot, (row, start, length) in enumerate(slots(seqlen, offsets)):
            found[slot, :, :length] = normalizers[row, :, start : start + length]
        return found

    shape = jax.ShapeDtypeStruct((q_seqlen.size, q.shape[2], q.shape[1]), jnp.float32)
    normalizers = jax.pure_callback(kept, shape, jax.nn.logsumexp(logits, -1), q_seqlen, q_offsets)
    return jnp.where(inside[..., None, None], mixed, jnp.nan), normalizers


def played_back(scale, mask_type, sliding_window_length, res, grad_output, **_):
    """Gradients as FlashAttention-2 takes them (section 3.1.1), from what the forward pass has left."""
    q, k, v, _, q_seqlen, _, q_offsets, _, _, _, kept, mixed = res
    logits, inside = scores(q, k, q_seqlen, q_offsets, scale, sliding_window_length)

    def joined(kept, seqlen, offsets):
        found = np.zeros(logits.shape[:3], np.float32)
        for slot, (row, start, length) in enumerate(slots(seqlen, offsets)):
            found[row, :, start : start + length] = kept[slot, :, :length]
        return found

    shape = jax.ShapeDtypeStruct(logits.shape[:3], jnp.float32)
    normalizers = jax.pure_callback(joined, shape, kept, q_seqlen, q_offsets)
    groups = q.shape[2] // k.shape[2]
    weights = jnp.where(inside[:, None, :, None], jnp.exp(logits - normalizers[..., None]), 0)
    dv = jnp.einsum("rnqk,rqnd->rknd", weights, grad_output)
    dweights = jnp.einsum("rqnd,rknd->rnqk", grad_output, jnp.repeat(v, groups, 2))
    moved = jnp.einsum("rqnd,rqnd->rnq", grad_output, mixed)
    dlogits = scale * weights * (dweights - moved[..., None])
    dq = jnp.einsum("rnqk,rknd->rqnd", dlogits, jnp.repeat(k, groups, 2))
    dk = jnp.einsum("rnqk,rqnd->rknd", dlogits, q)
    outside = ~inside[..., None, None]
    grouped = [x.reshape(*k.shape[:3], groups, -1).sum(3) for x in (dk, dv)]
    return tuple(jnp.where(outside, jnp.nan, x) for x in (dq, *grouped))


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.setattr(cudnn, "dot_product_attention", played)
    monkeypatch.setattr(cudnn, "_dot_product_attention_bwd_rule", played_back)


def row(lengths):
    """Segments of a row of documents of these lengths, then padding; and positions that start with each."""
    segments, positions = np.zeros(LENGTH, np.int32), np.zeros(LENGTH, np.int32)
    start = 0
    for number, length in enumerate(lengths, start=1):
        segments[start : start + length] = number
        positions[start : start + length] = np.arange(length)
        start += length
    return segments, positions


def case(lengths, window):
    rng = np.random.default_rng(0)
    q = rng.standard_normal((ROWS, LENGTH, HEADS, HEAD)).astype(np.float32)
    k, v = rng.standard_normal((2, ROWS, LENGTH, KV_HEADS, HEAD)).astype(np.float32)
    segments, positions = (np.stack(x) for x in zip(*map(row, lengths), strict=True))
    mask = Mask(positions, positions, segments, segments, True, window, aligned=True)
    return *map(jnp.asarray, (q, k, v)), jax.tree.map(jnp.asarray, mask)


CASES = {
    "one document, one that ends early": ([[LENGTH], [60]], None),
    "a window": ([[40, 30], [1, 1, 94]], 7),
    "more documents than a pass takes": ([[2] * 40, [5] * 17], None),
    "nothing but padding": ([[], [3, 3]], None),
}


@pytest.mark.parametrize("name", CASES)
def test_documents_of_a_row_stay_apart(name, kernels):
    q, k, v, mask = case(*CASES[name])
    real = (mask.q_segments > 0)[..., None, None]

    def loss(backend, q, k, v):
        out = backend(q, k, v)
        return jnp.sum(jnp.where(real, jnp.sin(out), 0)), out

    ours = functools.partial(cudnn.attend, mask=mask, scale=0.3)
    plain = functools.partial(xla.attend, mask=mask, bias=None, softcap=None, scale=0.3)
    results = [
        jax.jit(jax.value_and_grad(functools.partial(loss, one), argnums=(0, 1, 2), has_aux=True))(q, k, v)
        for one in (ours, plain)
    ]
    ((_, out), gradients), ((_, wanted), wanted_gradients) = results
    np.testing.assert_allclose(out, np.where(real, wanted, 0), atol=2e-6)
    for got, expected in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=5e-6)


def test_a_neighbor_is_not_seen(kernels):
    q, k, v, mask = case([[30, 40], [20, 20]], None)
    changed = v + 1.0 * (np.asarray(mask.k_segments) == 1)[..., None, None]
    before, after = (cudnn.attend(q, k, values, mask, scale=0.3) for values in (v, changed))
    second = np.asarray(mask.q_segments) == 2
    np.testing.assert_array_equal(np.asarray(before)[second], np.asarray(after)[second])
    assert not np.allclose(np.asarray(before)[~second], np.asarray(after)[~second])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bias": jnp.zeros((2, 4, 96, 96))}, "no bias"),
        ({"softcap": 30.0}, "no soft cap"),
        ({"dtype": jnp.float32}, "16-bit"),
        ({"head": 12}, "multiple of 8"),
        ({"causal": False}, "causal"),
    ],
)
def test_what_it_does_not_take(change, said):
    mask = case([[96], [96]], None)[3].replace(causal=change.get("causal", True))
    q = jnp.zeros((ROWS, LENGTH, HEADS, change.get("head", 64)), change.get("dtype", jnp.bfloat16))
    assert said in cudnn.refusal(q, mask, change.get("bias"), change.get("softcap"))
    assert (
        cudnn.refusal(jnp.zeros((ROWS, LENGTH, HEADS, 64), jnp.bfloat16), mask.replace(causal=True), None, None)
        == ""
    )


def test_the_backward_pass_computes_no_attention_again(kernels):
    q, k, v, mask = case([[96], [40, 56]], None)

    def kernels_of(remat):
        """Calls of kernels in a step that keeps these; each is played with one callback."""
        kept = jax.checkpoint(lambda q: jnp.sum(cudnn.attend(2 * q, k, v, mask, scale=0.3)), policy=policy(remat))
        return str(jax.make_jaxpr(jax.grad(kept))(q)).count("pure_callback[")

    assert kernels_of("query+key+value+attention") == 2
    assert kernels_of("query+key+value") == 3
