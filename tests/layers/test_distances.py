"""Attention to distances against loops over single scores in float64, and against transformers' T5."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers.attention import blocks
from jaxlm.layers.attention.call import attend
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.attention.relative import initial_relative
from jaxlm.layers.initial import Initial
from jaxlm.layers.names import map_named
from jaxlm.layers.positions import bucket_of, initial_position
from tests.tiny import CALL

EMBED, HEADS, KV_HEADS, HEAD = 10, 4, 2, 6
ATTENTION = config.Attention(HEADS, KV_HEADS, HEAD)
SEGMENTS = np.array([[1] * 5 + [2] * 8, [0] * 3 + [1] * 10, [1] * 11 + [0] * 2])
ROWS, LENGTH = SEGMENTS.shape
POSITIONS = np.array([[*range(5), *range(40, 48)], [7, 7, 7, *range(10)], [*range(11), 0, 0]])


def random(tree, seed=0):
    rng = np.random.default_rng(seed)
    return map_named(lambda _, leaf: jnp.asarray(0.5 * rng.standard_normal(leaf.shape), jnp.float32), tree)


def made(kind, causal, seed=0):
    return random(initial_relative(kind, ATTENTION, EMBED, causal, Initial(jax.random.key(0)).at("position")), seed)


def arrays(seed=1):
    rng = np.random.default_rng(seed)
    shapes = [(ROWS, LENGTH, heads, HEAD) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def shaw(part, causal, off=0):
    """(a^K, a^V) of a query's and a key's position: w_clip(j - i), equations 3 and 4."""
    keys = np.asarray(part.keys.kernel, np.float64)
    values = 0 * keys if part.values is None else np.asarray(part.values.kernel, np.float64)

    def vectors(i, j):
        place = part.clip + max(-part.clip, min(part.clip, j - i + off))
        return keys[min(place, len(keys) - 1)], values[min(place, len(keys) - 1)]

    return vectors


def oracle(q, k, v, mask, score, value):
    """softmax over seen keys of score(row, i, j, head), of v_j + value(i, j); zeros where nothing is seen."""
    out, seen = np.zeros(q.shape), np.asarray(mask.dense())
    for row, i, head in np.ndindex(*q.shape[:3]):
        keys = np.flatnonzero(seen[row, i])
        if len(keys):
            scores = np.array([score(row, i, j, head) for j in keys])
            weights = np.exp(scores - scores.max())
            of = POSITIONS[row]
            mixed = [v[row, j, head // (HEADS // KV_HEADS)] + value(of[i], of[j]) for j in keys]
            out[row, i, head] = weights @ np.array(mixed) / weights.sum()
    return out


def wanted_of(part, q, k, v, mask, off=0):
    """Each score written out; `off` is added to every distance."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    group = lambda head: head // (HEADS // KV_HEADS)  # noqa: E731
    if hasattr(part, "clip"):
        vectors = shaw(part, mask.causal, off)

        def score(row, i, j, head):
            at, other = POSITIONS[row][[i, j]]
            return q[row, i, head] @ (k[row, j, group(head)] + vectors(at, other)[0]) * HEAD**-0.5

        return oracle(q, k, v, mask, score, lambda i, j: vectors(i, j)[1])
    w = np.asarray(part.key.kernel, np.float64)
    u, r_bias = (np.asarray(x, np.float64) for x in (part.content_bias, part.distance_bias))

    def score(row, i, j, head):
        apart = POSITIONS[row, i] - POSITIONS[row, j] - off
        angles = apart / 10_000 ** (np.arange(0, EMBED, 2) / EMBED)
        r = np.concatenate([np.sin(angles), np.cos(angles)])
        distance = r @ w[:, group(head)]
        terms = (q[row, i, head] @ k[row, j, group(head)], q[row, i, head] @ distance)  # (a), (b)
        terms += (u[head] @ k[row, j, group(head)], r_bias[head] @ distance)  # (c), (d)
        return sum(terms) * HEAD**-0.5

    return oracle(q, k, v, mask, score, lambda i, j: 0.0)


def mask_of(causal, window=None, aligned=True):
    at, segments = jnp.asarray(POSITIONS), jnp.asarray(SEGMENTS)
    return Mask(at, at, segments, segments, causal, window, aligned)


KINDS = {
    "shaw": config.Shaw(clip=3),
    "shaw, long clip": config.Shaw(clip=20),
    "shaw, keys": config.Shaw(clip=2, vectors="keys"),
    "transformer_xl": config.TransformerXl(),
}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_every_score_by_hand(name, causal, monkeypatch):
    """In a row of its own tokens, among a cache's with a window, and in blocks."""
    monkeypatch.setattr(blocks, "SMALLEST", 4)
    part, (q, k, v) = made(KINDS[name], causal), arrays()

    @functools.partial(jax.jit, static_argnums=1)
    def got(mask, attention="xla"):
        queries, content = part(jnp.asarray(q), mask, CALL)
        call = dataclasses.replace(CALL, attention=attention)
        return attend(queries, jnp.asarray(k), jnp.asarray(v), mask=mask, content=content, call=call)

    real, ways = SEGMENTS > 0, [(None, True, "xla"), (4, False, "xla")]
    if causal and getattr(part, "values", None) is None:
        ways.append((4, True, "blocks"))
    for window, aligned, attention in ways:
        mask = mask_of(causal, window, aligned)
        wanted, one = wanted_of(part, q, k, v, mask), np.asarray(got(mask, attention))
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one[real], wanted[real], atol=5e-6)
    wrong = wanted_of(part, q, k, v, mask, off=1)
    assert np.abs(wrong - wanted)[real].max() > 1e-2, "the control: distances off by one"


def test_a_soft_cap_is_of_the_whole_score():
    part, (q, k, v), mask = made(KINDS["shaw, keys"], True), arrays(), mask_of(True)
    vectors = shaw(part, True)

    def score(row, i, j, head):
        apart = vectors(*POSITIONS[row][[i, j]])[0]
        return 2.0 * np.tanh(q[row, i, head] @ (k[row, j, head // 2] + apart) * HEAD**-0.5 / 2.0)

    @functools.partial(jax.jit, static_argnums=0)
    def got(attention):
        queries, content = part(jnp.asarray(q), mask, CALL)
        call = dataclasses.replace(CALL, attention=attention)
        return attend(queries, jnp.asarray(k), jnp.asarray(v), mask=mask, content=content, softcap=2.0, call=call)

    wanted = oracle(q, k, v, mask, score, lambda i, j: 0.0)
    for attention in ("xla", "blocks"):
        np.testing.assert_allclose(np.asarray(got(attention))[SEGMENTS > 0], wanted[SEGMENTS > 0], atol=5e-6)


@pytest.mark.parametrize("aligned", [True, False])
def test_gradients_are_those_of_vectors_for_every_pair(aligned):
    """Of vectors too, where each pair has its own and attention is written as the paper has it."""
    part, (q, k, v), mask = made(config.Shaw(clip=3), False), arrays(), mask_of(False, aligned=aligned)
    real = jnp.asarray(SEGMENTS > 0)[..., None, None]

    def fast(part, q):
        queries, content = part(q, mask, CALL)
        mixed = attend(queries, jnp.asarray(k), jnp.asarray(v), mask=mask, content=content, call=CALL)
        return jnp.sum(jnp.where(real, jnp.sin(mixed), 0))

    def slow(part, q):
        apart = jnp.clip(mask.k_positions[:, None] - mask.q_positions[:, :, None], -3, 3) + 3
        keys, values = part.keys.kernel[apart], part.values.kernel[apart]
        many = [jnp.repeat(jnp.asarray(x), HEADS // KV_HEADS, axis=2) for x in (k, v)]
        scores = jnp.einsum("rqhd,rkhd->rhqk", q, many[0]) + jnp.einsum("rqhd,rqkd->rhqk", q, keys)
        weights = jax.nn.softmax(jnp.where(mask.dense()[:, None], scores * HEAD**-0.5, -1e30))
        mixed = jnp.einsum("rhqk,rkhd->rqhd", weights, many[1]) + jnp.einsum("rhqk,rqkd->rqhd", weights, values)
        return jnp.sum(jnp.where(real, jnp.sin(mixed), 0))

    got, wanted = (jax.jit(jax.grad(f, argnums=(0, 1)))(part, jnp.asarray(q)) for f in (fast, slow))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert np.abs(other).max() > 1e-3
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_of_xlnet(causal):
    """Which shifts its products with Transformer-XL's sinusoids as Dai et al. do, for keys on both sides."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.xlnet.modeling_xlnet import XLNetModel, XLNetRelativeAttention

    told = transformers.XLNetConfig(d_model=16, n_head=4, n_layer=1, d_inner=8, vocab_size=8, dropout=0.0)
    layer, length = XLNetRelativeAttention(told), 9
    attention, init = config.Attention(4, 4, 4), Initial(jax.random.key(0))
    part = random(initial_relative(config.TransformerXl(), attention, 16, causal, init))
    q, k, v = np.random.default_rng(2).standard_normal((3, 2, length, 4, 4)).astype(np.float32)
    with torch.no_grad():
        layer.r_w_bias.copy_(torch.tensor(np.asarray(part.content_bias)))
        layer.r_r_bias.copy_(torch.tensor(np.asarray(part.distance_bias)))
        waves = XLNetModel(told).relative_positional_encoding(length, length)[:, 0]
        keys = torch.einsum("th,hnd->tnd", waves, torch.tensor(np.asarray(part.key.kernel)))[:, None].expand(
            -1, 2, -1, -1
        )
        hidden = torch.triu(torch.ones(length, length), 1)[..., None, None].expand(-1, -1, 2, 1) if causal else None
        wanted = layer.rel_attn_core(*(torch.tensor(x).transpose(0, 1) for x in (q, k, v)), keys, attn_mask=hidden)
    at, ones = jnp.tile(jnp.arange(length), (2, 1)), jnp.ones((2, length), int)
    mask = Mask(at, at, ones, ones, causal, aligned=True)

    def got(part):
        queries, content = part(jnp.asarray(q), mask, CALL)
        return np.asarray(attend(queries, jnp.asarray(k), jnp.asarray(v), mask=mask, content=content, call=CALL))

    wanted = wanted.transpose(0, 1).numpy()
    np.testing.assert_allclose(got(part), wanted, atol=2e-6)
    swapped = part.replace(content_bias=part.distance_bias, distance_bias=part.content_bias)
    assert np.abs(got(swapped) - wanted).max() > 1e-2, "the control: the two biases in each other's place"


@pytest.mark.parametrize("name", ["shaw", "transformer_xl"])
def test_in_16_bits(name):
    """Values and gradients are those of float32 but for rounding."""
    part, (q, k, v), mask = made(KINDS[name], True), arrays(), mask_of(True)
    real = jnp.asarray(SEGMENTS > 0)[..., None, None]

    @functools.partial(jax.jit, static_argnums=2)
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def both(part, q, precision):
        call = dataclasses.replace(CALL, precision=config.PRECISIONS[precision])
        q, keys, values = (jnp.asarray(x, call.precision.compute) for x in (q, k, v))
        queries, content = part(q, mask, call)
        mixed = jnp.where(real, attend(queries, keys, values, mask=mask, content=content, call=call), 0)
        return jnp.sum(jnp.sin(mixed.astype(jnp.float32))), mixed.astype(jnp.float32)

    got, wanted = (jax.tree.leaves(both(part, jnp.asarray(q), name)) for name in ("bfloat16", "float32"))
    for one, other in zip(got, wanted, strict=True):
        assert np.linalg.norm(one - other) < 2e-2 * np.linalg.norm(other)
        assert np.linalg.norm(one - other) > 0


@pytest.mark.parametrize("aligned", [True, False])
def test_positions_that_are_not_consecutive_are_loud(aligned):
    part, (q, k, v), mask = made(config.TransformerXl(), True), arrays(), mask_of(True, aligned=aligned)
    jump = jnp.asarray(POSITIONS).at[2, 6:].add(10)
    mask = dataclasses.replace(mask, q_positions=jump, k_positions=jump)
    queries, content = part(jnp.asarray(q), mask, CALL)
    got = attend(queries, jnp.asarray(k), jnp.asarray(v), mask=mask, content=content, call=CALL)
    assert np.isnan(got[2, 6:11]).all()
    assert np.isfinite(got[2, :6]).all()


@pytest.mark.parametrize(
    ("kind", "attention", "message"),
    [
        ("shaw", "blocks", "'blocks': it takes no vectors of distances for values; choose auto"),
        ("shaw, keys", "chunked", "'chunked': it takes no vectors of distances; choose auto"),
        ("transformer_xl", "chunked", "'chunked': it takes no vectors of distances; choose auto"),
    ],
)
def test_a_backend_that_does_not_take_vectors_says_so(kind, attention, message):
    ones = jnp.ones((1, 32), int)
    mask = Mask(jnp.arange(32)[None], jnp.arange(32)[None], ones, ones, aligned=True)
    q = jnp.ones((1, 32, HEADS, HEAD))
    queries, content = made(KINDS[kind], True)(q, mask, CALL)
    call = dataclasses.replace(CALL, attention=attention)
    with pytest.raises(UsageError, match=message):
        attend(queries, q, q, mask=mask, content=content, call=call)


# --- T5's buckets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("kind", [config.RelativeBias(), config.RelativeBias(8, 20), config.RelativeBias(10, 1000)])
def test_buckets(kind, two_sided):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.models.t5.modeling_t5 import T5Attention

    apart = np.arange(-1500, 1501)

    def reference(bidirectional):
        found = T5Attention._relative_position_bucket(
            torch.tensor(-apart), bidirectional, num_buckets=kind.buckets, max_distance=kind.distance
        )
        return found.numpy()

    got = bucket_of(apart, kind, two_sided=two_sided)
    np.testing.assert_array_equal(got, reference(two_sided))
    assert set(got) <= set(range(kind.buckets))
    assert (got != reference(not two_sided)).any(), "the control: the other kind of attention"
    assert (bucket_of(apart + 1, kind, two_sided=two_sided) != reference(two_sided)).any(), "off by one"


@pytest.mark.parametrize("causal", [True, False])
def test_biases_of_t5(causal):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.t5.modeling_t5 import T5Attention

    kind = config.RelativeBias(buckets=12, distance=30)
    told = transformers.T5Config(
        d_model=16, num_heads=HEADS, d_kv=4, is_decoder=causal,
        relative_attention_num_buckets=12, relative_attention_max_distance=30,
    )  # fmt: skip
    layer = T5Attention(told, has_relative_attention_bias=True)
    position = random(initial_position(kind, 16, Initial(jax.random.key(0)), HEADS))
    layer.relative_attention_bias.weight.data = torch.tensor(np.asarray(position.table.kernel))
    wanted = layer.compute_bias(50, 50).detach().numpy()
    at, ones = jnp.arange(50)[None], jnp.ones((1, 50), int)
    allowed = np.tril(np.ones((50, 50), bool)) if causal else np.ones((50, 50), bool)
    for aligned in (True, False):
        got = np.asarray(position.bias(Mask(at, at, ones, ones, causal, aligned=aligned), HEADS, CALL))
        np.testing.assert_array_equal(got[:, :, allowed], wanted[:, :, allowed])
    other = position.bias(Mask(at, at, ones, ones, not causal, aligned=True), HEADS, CALL)
    assert np.abs(np.asarray(other) - wanted)[:, :, allowed].max() > 0.1, "the control: the other kind of attention"
    shifted = position.bias(Mask(at + 1, at, ones, ones, causal), HEADS, CALL)
    low = np.tril(np.ones((50, 50), bool), -1)
    assert np.nanmax(np.abs(np.asarray(shifted) - wanted)[:, :, low]) > 0.1, "the control: distances off by one"


def test_what_is_not_defined_is_refused():
    init = Initial(jax.random.key(0))
    with pytest.raises(UsageError, match="relative_bias: all layers share one table of heads"):
        initial_position(config.RelativeBias(), 16, init)
    for kind in (config.RelativeBias(2), config.RelativeBias(32, 16)):
        with pytest.raises(UsageError, match="half of at least 4 buckets are single"):
            initial_position(kind, 16, init, 4)
    with pytest.raises(UsageError, match=r"transformer_xl: .* model\.embed=15 is odd"):
        initial_relative(config.TransformerXl(), ATTENTION, 15, True, init)
