"""Prefixes that are seen from both sides: the mask against loops, and which backends take it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.layers.attention.call import attend, refusals
from jaxlm.layers.attention.mask import Mask
from jaxlm.layers.contracts import Call
from jaxlm.models import build
from jaxlm.parallel.layout import Layout, single_device
from tests.tiny import CALL, layout, random_ids, tokens

POSITIONS = np.array([[*range(5), *range(4), 0], [7, 8, 9, 10, 11, 12, 0, 1, 0, 0]])
"""The first document of the second row goes on from another."""
SEGMENTS = np.array([[1] * 5 + [2] * 4 + [0], [1] * 6 + [2] * 2 + [0] * 2])
PREFIX = np.array([[3] * 5 + [1] * 4 + [0], [10] * 6 + [2] * 2 + [0] * 2])
"""Three tokens, one, three that count from 7, and a whole document."""


def loops(positions, segments, prefix, keys: int, window: int | None) -> np.ndarray:
    """Query by query and key by key; keys beyond the tokens are padding."""
    rows, length = positions.shape
    seen = np.zeros((rows, length, keys), bool)
    for row, q, k in np.ndindex(rows, length, length):
        if segments[row, q] == 0 or segments[row, q] != segments[row, k]:
            continue
        if window is not None and abs(positions[row, q] - positions[row, k]) >= window:
            continue
        before = positions[row, k] <= positions[row, q]
        seen[row, q, k] = before or positions[row, k] < prefix[row, k]
    return seen


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("keys", [10, 14])
def test_the_mask_key_by_key(window, keys):
    """Of the tokens themselves, and of a cache with room for more."""
    more = ((0, 0), (0, keys - 10))
    given = (POSITIONS, np.pad(POSITIONS, more), SEGMENTS, np.pad(SEGMENTS, more))
    mask = Mask(*map(jnp.asarray, given), window=window, prefix=jnp.asarray(PREFIX))
    wanted = loops(POSITIONS, SEGMENTS, PREFIX, keys, window)
    np.testing.assert_array_equal(mask.dense(), wanted)
    part = mask.block(slice(1, 4), slice(2, keys))
    np.testing.assert_array_equal(part.dense(), wanted[:, 1:4, 2:])
    assert (mask.replace(prefix=None).dense() != wanted).any()


@pytest.mark.parametrize(
    ("platform", "spread", "taking"),
    [
        ("cpu", 1, ["xla", "chunked"]),
        ("tpu", 1, ["xla", "chunked"]),
        ("gpu", 1, ["xla", "chunked"]),
        ("tpu", 2, []),
    ],
)
def test_who_takes_a_prefix(platform, spread, taking, monkeypatch):
    monkeypatch.setattr(Layout, "platform", platform)
    ones = jnp.ones((2, 256), int)
    q = jnp.ones((2, 256, 2, 64), jnp.bfloat16)
    mask = Mask(ones, ones, ones, ones, aligned=True, prefix=ones)
    where = layout(context=spread) if spread > 1 else single_device()
    found = refusals(where, q, q, mask, None, None)
    assert [name for name, why in found.items() if not why] == taking
    own = {"cpu": "blocks", "tpu": "splash", "gpu": "cudnn"}[platform] if spread == 1 else "ring"
    assert found[own] == "it takes no prefix that is seen from both sides"
    without = refusals(where, q, q, mask.replace(prefix=None), None, None)
    assert without[own] == "", "the control"


@pytest.mark.parametrize(
    ("backend", "mesh", "message"),
    [
        ("blocks", {}, "where.attention='blocks': it takes no prefix that is seen from both sides; choose auto"),
        ("ring", {"context": 2}, "where.attention='ring': it takes no prefix that is seen from both sides"),
        ("auto", {"context": 2}, "no attention backend takes this: .* no prefix that is seen from both sides"),
    ],
)
def test_others_refuse_by_name(backend, mesh, message):
    q, ones = jnp.ones((8, 32, 4, 6)), jnp.ones((8, 32), int)
    mask = Mask(ones, ones, ones, ones, aligned=True, prefix=ones)
    with pytest.raises(UsageError, match=message):
        attend(q, q, q, mask=mask, call=Call(layout(**mesh), attention=backend))


SIZES = {"vocab": 64, "embed": 16, "layers": 1}
BLOCK = config.Block(config.Attention(heads=2, kv_heads=2, head=8), config.Gated(16))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (config.Decoder(**SIZES, block=BLOCK, position=config.Shaw(4)), "count distances to what stands before"),
        (config.Decoder(**SIZES, block=BLOCK, position=config.TransformerXl()), "choose others, such as"),
        (config.Decoder(**SIZES, block=BLOCK, position=config.RelativeBias()), "choose others, such as"),
        (config.Rwkv4(**SIZES, width=16), "rwkv4 reads from left to right only: it sees no prefix"),
    ],
)
def test_models_that_know_one_side_refuse(model, message):
    inputs = tokens(random_ids(2, 8))
    abstract = jax.eval_shape(lambda: build(model, jax.random.key(0)))
    jax.eval_shape(lambda m: m(inputs, CALL).hidden, abstract)
    marked = inputs.replace(prefix=jnp.full_like(inputs.ids, 3))
    with pytest.raises(UsageError, match=message):
        jax.eval_shape(lambda m: m(marked, CALL).hidden, abstract)
