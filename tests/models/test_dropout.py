"""Dropout is drawn for (step, row, layer, site): the rest of the batch and its cutting do not matter."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.layers import block, random
from jaxlm.models import decoder
from tests.tiny import CALL, GLOBAL, KINDS, NAMES, SIZES, layout, random_ids, random_model, tokens

KINDS = KINDS | {"decoder": config.Decoder(**SIZES, layers=3, block=GLOBAL)}
KINDS = {name: dataclasses.replace(kind, dropout=0.3) for name, kind in KINDS.items()}
IDS, ROWS = random_ids(8, 6), np.array([11, 7, 500, 2, 0, 1, 3, 9])


@functools.cache
def compiled(name):
    def run(model, inputs, rows, step):
        keys = random.row_keys(random.key(0, step, "model"), rows)
        memory = model.encode(inputs, CALL, key=keys) if name == "encoder_decoder" else None
        return model(inputs, CALL, memory=memory, key=keys).hidden

    return functools.partial(jax.jit(run), random_model(KINDS[name]))


@pytest.mark.parametrize("name", NAMES)
def test_rows_keep_their_masks_in_any_order_and_any_micro_batch(name):
    whole = compiled(name)(tokens(IDS), jnp.asarray(ROWS), 3)
    order = np.array([5, 1, 0, 7, 4, 6, 2, 3])
    shuffled = compiled(name)(tokens(IDS[order]), jnp.asarray(ROWS[order]), 3)
    np.testing.assert_allclose(shuffled, whole[order], atol=2e-5)
    if name == "decoder":
        part = compiled(name)(tokens(IDS[2:4]), jnp.asarray(ROWS[2:4]), 3)
        np.testing.assert_allclose(part, whole[2:4], atol=2e-5)
    assert np.abs(compiled(name)(tokens(IDS), jnp.asarray(ROWS), 4) - whole).max() > 0.1, "another step"
    assert np.abs(compiled(name)(tokens(IDS), jnp.asarray(ROWS + 1), 3) - whole).max() > 0.1, "other rows"


def test_eight_devices_draw_what_one_draws():
    where = layout(fsdp=2, tensor=2)
    call, model = dataclasses.replace(CALL, layout=where), random_model(KINDS["decoder"])
    rows = jax.device_put(jnp.asarray(ROWS), where.sharding(("row",), (8,)))
    inputs = jax.tree.map(lambda x: jax.device_put(x, where.sharding(("row", "pos"), x.shape)), tokens(IDS))
    keys = jax.jit(lambda rows: random.row_keys(random.key(0, 3, "model"), rows))(rows)
    got = jax.jit(lambda m, i, k: m(i, call, key=k).hidden)(model, inputs, keys)
    wanted = compiled("decoder")(tokens(IDS), jnp.asarray(ROWS), 3)
    np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_every_layer_and_every_site_has_its_own_mask(monkeypatch):
    """All the masks of one row: three layers, two branches each, and the embedding."""
    seen = []

    def spy(x, rate, keys, layout):
        seen.append(jax.random.key_data(keys))
        return random.dropout(x, rate, keys, layout)

    monkeypatch.setattr(block, "dropout", spy)
    monkeypatch.setattr(decoder, "dropout", spy)
    call, model = dataclasses.replace(CALL, layers="unroll"), random_model(KINDS["decoder"])

    def keys():
        model(tokens(IDS[:1]), call, key=random.row_keys(random.key(0, 0, "model"), jnp.arange(1)))
        return jnp.concatenate(seen)

    assert len(np.unique(jax.jit(keys)(), axis=0)) == 1 + 3 * 2


def test_without_a_key_there_is_none():
    def drawn(keys):
        return "random_bits" in str(jax.make_jaxpr(lambda m: m(tokens(IDS), CALL, key=keys).hidden)(model))

    model = random_model(KINDS["decoder"])
    assert not drawn(None)
    assert drawn(random.row_keys(jax.random.key(0), jnp.asarray(ROWS)))
