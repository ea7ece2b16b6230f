"""A document gets the same numbers alone, packed with others, padded, and in any row."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from tests.tiny import CALL, KINDS, NAMES, random_ids, random_model, tokens

ROWS, LENGTH, PACKED = 3, 5, 12
FIRST, SECOND, FIRST_SOURCE, SECOND_SOURCE = (random_ids(ROWS, LENGTH, seed) for seed in range(4))
LONG, LONG_SOURCE = (random_ids(ROWS, PACKED, seed) for seed in (4, 5))


@functools.cache
def compiled(name):
    def run(model, inputs, source):
        memory = None if source is None else model.encode(source, CALL)
        return model.logits(model(inputs, CALL, memory=memory).hidden, CALL)

    return functools.partial(jax.jit(run), random_model(KINDS[name]))


def run(name, inputs, source):
    encoder_decoder = isinstance(KINDS[name], config.EncoderDecoder)
    return np.asarray(compiled(name)(inputs, source if encoder_decoder else None))


def tolerance(wanted):
    return 2e-5 * max(1, np.std(wanted))


@pytest.mark.parametrize("name", NAMES)
def test_packed_and_padded_is_alone(name):
    alone = [run(name, tokens(d), tokens(s)) for d, s in ((FIRST, FIRST_SOURCE), (SECOND, SECOND_SOURCE))]

    def pack(one, two, second_segment):
        ids = np.concatenate([one, two, LONG[:, 2 * LENGTH :]], axis=1)
        segments = [1] * LENGTH + [second_segment] * LENGTH + [0] * (PACKED - 2 * LENGTH)
        return tokens(ids, [segments] * ROWS)

    got = run(name, pack(FIRST, SECOND, 2), pack(FIRST_SOURCE, SECOND_SOURCE, 2))
    for begin, wanted in zip((0, LENGTH), alone):
        assert np.abs(got[:, begin : begin + LENGTH] - wanted).max() <= tolerance(wanted)
    # The control: as one document, the second part sees the first.
    joined = run(name, pack(FIRST, SECOND, 1), pack(FIRST_SOURCE, SECOND_SOURCE, 1))
    assert np.abs(joined[:, LENGTH : 2 * LENGTH] - alone[1]).max() > 100 * tolerance(alone[1])


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_meet(name):
    order = np.array([2, 0, 1])
    wanted = run(name, tokens(FIRST), tokens(FIRST_SOURCE))
    got = run(name, tokens(FIRST[order]), tokens(FIRST_SOURCE[order]))
    assert np.abs(got - wanted[order]).max() <= tolerance(wanted)


@pytest.mark.parametrize("name", NAMES)
def test_who_sees_whom(name):
    """Causal models: a token changes nothing before it. Encoders: it changes everything."""
    changed = LONG.copy()
    changed[:, 6] = LONG[:, 6] % 60 + 1
    before, after = (run(name, tokens(ids), tokens(LONG_SOURCE)) for ids in (LONG, changed))
    moved = np.abs(before - after).max(axis=(0, 2))
    if name == "encoder":
        assert (moved > 1e-4).all()
    else:
        assert (moved[:6] == 0).all()
        assert (moved[6:] > 1e-4).all()


@pytest.mark.parametrize(("name", "relative"), [("decoder", True), ("encoder", False)])
def test_positions_come_from_the_tokens(name, relative):
    """RoPE sees distances only; a learned table sees the position itself."""
    later = tokens(LONG, positions=np.arange(PACKED) + 11 + 0 * LONG)
    error = np.abs(run(name, later, None) - run(name, tokens(LONG), None)).max()
    assert (error < 1e-4) == relative


def test_a_position_beyond_the_learned_table_is_loud():
    position = random_model(KINDS["encoder"]).position
    got = position.embed(jnp.zeros((1, 3, 16)), jnp.array([[0, 31, 32]]), CALL)
    np.testing.assert_array_equal(np.isfinite(got).all(axis=-1), [[True, True, False]])
