"""A document gets the same numbers alone, packed with others, padded, and in any row."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from tests.tiny import CALL, KINDS, random_ids, random_model, tokens

LENGTHS = (5, 4)


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


@pytest.mark.parametrize("name", KINDS)
def test_packed_and_padded_is_alone(name):
    first, second = (random_ids(1, n, seed) for seed, n in enumerate(LENGTHS))
    sources = [random_ids(1, n, 10 + n) for n in LENGTHS]
    alone = [run(name, tokens(d), tokens(s)) for d, s in zip((first, second), sources)]

    def pack(one, two, padding):
        ids = np.concatenate([one, two, random_ids(1, padding, 7)], axis=1)
        return tokens(ids, [[1] * one.shape[1] + [2] * two.shape[1] + [0] * padding])

    got = run(name, pack(first, second, 3), pack(*sources, 2))
    for begin, wanted in zip((0, LENGTHS[0]), alone):
        error = np.abs(got[:, begin : begin + wanted.shape[1]] - wanted).max()
        assert error <= tolerance(wanted)
    # The control: as one document, the second part sees the first.
    ids = np.concatenate([first, second], axis=1)
    joined = run(name, tokens(ids), tokens(np.concatenate(sources, axis=1)))
    assert np.abs(joined[:, LENGTHS[0] :] - alone[1]).max() > 100 * tolerance(alone[1])


@pytest.mark.parametrize("name", KINDS)
def test_rows_do_not_meet(name):
    ids, source, order = random_ids(5, 6), random_ids(5, 4, 1), np.array([3, 0, 4, 1, 2])
    wanted = run(name, tokens(ids), tokens(source))
    got = run(name, tokens(ids[order]), tokens(source[order]))
    assert np.abs(got - wanted[order]).max() <= tolerance(wanted)


@pytest.mark.parametrize("name", KINDS)
def test_who_sees_whom(name):
    """Causal models: a token changes nothing before it. Encoders: it changes everything."""
    ids = random_ids(1, 9)
    changed = ids.copy()
    changed[0, 6] = ids[0, 6] % 60 + 1
    source = tokens(random_ids(1, 4, 1))
    moved = np.abs(run(name, tokens(ids), source) - run(name, tokens(changed), source)).max(axis=-1)[0]
    if name == "encoder":
        assert (moved > 1e-4).all()
    else:
        assert (moved[:6] == 0).all()
        assert (moved[6:] > 1e-4).all()


def test_positions_come_from_the_tokens():
    """RoPE sees distances only; a learned table sees the position itself."""
    ids = random_ids(1, 9)
    later = tokens(ids, positions=np.arange(9)[None] + 11)
    for name, same in [("decoder", True), ("encoder", False)]:
        error = np.abs(run(name, later, None) - run(name, tokens(ids), None)).max()
        assert (error < 1e-4) == same, name


def test_a_position_beyond_the_learned_table_is_loud():
    far = tokens(random_ids(1, 3), positions=np.array([[0, 31, 32]]))
    finite = np.isfinite(
        np.asarray(random_model(KINDS["encoder"]).position.embed(jnp.zeros((1, 3, 16)), far.positions, CALL))
    )
    np.testing.assert_array_equal(finite.all(axis=-1), [[True, True, False]])
