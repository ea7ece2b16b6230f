"""Token by token, in chunks and step by step, RWKV's recurrences are the same: values, states and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.layers.wkv import WkvState, wkv4, wkv6, wkv7
from jaxlm.layers.wkv.chunks import in_chunks

ROWS, LENGTH, HEADS, HEAD = 2, 150, 2, 8
STRENGTHS = ("mixed", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("weak", "strong")))


def boundaries():
    """Documents that begin in chunks, at their edges and twice in a row; padding in front, between and behind."""
    starts, padding = np.zeros((2, ROWS, LENGTH), bool)
    starts[0, [0, 4, 40, 41, 64, 128]] = True
    starts[1, [5, 95]] = True
    padding[1, :5] = padding[1, 30:33] = padding[0, 140:] = True
    return jnp.asarray(starts), jnp.asarray(padding)


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def log_decay(strength, *shape):
    """Down to -60 a token, of which two already leave nothing."""
    center = {"weak": -5.0, "strong": 2.0, "mixed": 0.0}[strength]
    return -jnp.exp(jnp.clip(center + (2 if strength == "mixed" else 1) * draw(9, *shape), -9, 4.1))


def case(version, strength):
    """(function of arguments and form, arguments)."""
    starts, padding = boundaries()
    r, k, v = draw(0, 3, ROWS, LENGTH, HEADS, HEAD)
    state, bonus = draw(1, ROWS, HEADS, HEAD, HEAD), draw(2, HEADS, HEAD)
    decay = log_decay(strength, ROWS, LENGTH, HEADS, HEAD)
    match version:
        case 4:
            key, value = 4 * draw(3, ROWS, LENGTH, HEAD), draw(4, ROWS, LENGTH, HEAD)
            state = WkvState(draw(5, ROWS, HEAD), jnp.exp(draw(6, ROWS, HEAD)), 3 * draw(7, ROWS, HEAD))
            arguments = (-log_decay(strength, HEAD), draw(2, HEAD), key, value, state)
            return lambda d, u, k, v, s, form: wkv4(d, u, k, v, starts, padding, s, form), arguments
        case 6:
            arguments = (r, k, v, decay, bonus, state)
            return lambda r, k, v, w, u, s, form: wkv6(r, k, v, w, u, starts, padding, s, form), arguments
        case 7:
            removal = draw(3, *k.shape)
            # keys that hardly differ: what is taken out is put back in over and over
            removal = removal[:, :1] + 0.1 * removal
            removal = removal / jnp.linalg.norm(removal, axis=-1, keepdims=True)
            arguments = (r, k, v, decay, removal, jax.nn.sigmoid(3 + draw(4, *k.shape)), state)
            return lambda r, k, v, w, z, a, s, form: wkv7(r, k, v, w, z, a, starts, padding, s, form), arguments


@functools.cache
def found(version, strength, form):
    """Results, and gradients with respect to every argument."""
    f, arguments = case(version, strength)
    _, padding = boundaries()

    def loss(arguments):
        mixed, state = f(*arguments, form)
        mixed = jnp.where(padding.reshape(*padding.shape, *(1,) * (mixed.ndim - 2)), 0, mixed)
        # a state of RWKV-4 is a fraction: what it will give matters
        seen = state.numerator / state.denominator if version == 4 else state
        weights = draw(11, *mixed.shape)
        return jnp.sum(jnp.sin(mixed) * weights) + jnp.sum(jnp.sin(seen)), (mixed, seen)

    (_, results), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(arguments)
    return jax.tree.map(np.asarray, (*results, *gradients))


def agree(got, wanted):
    for place, (one, other) in enumerate(zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True)):
        assert np.isfinite(one).all()
        error, limit = np.abs(one - other).max(), 1e-5 * max(1.0, np.abs(other).max())
        assert error <= limit, f"{place}: {error:.1e} beyond {limit:.1e}"


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("version", [4, 6, 7])
def test_in_chunks_as_token_by_token(version, strength):
    agree(found(version, strength, "chunked"), found(version, strength, "scan"))


def test_a_wrong_boundary_is_noticed():
    wanted = found(6, "mixed", "scan")
    with pytest.raises(AssertionError, match="0: "):
        agree((np.roll(wanted[0], 1, axis=1), *wanted[1:]), wanted)


@pytest.mark.parametrize("version", [6, 7])
def test_by_one_token_at_a_time(version):
    """The step of decoding: forty calls of one token, each with the state of the one before."""
    f, arguments = case(version, "mixed")
    wanted = f(*arguments, "chunked")[0][:, :40]
    starts, padding = boundaries()
    fixed = 1 if version == 6 else 0

    @jax.jit
    def step(state, token, start, pad):
        run = wkv6 if version == 6 else wkv7
        return run(*token, *arguments[4 : 4 + fixed], start, pad, state, "auto")

    state, got = arguments[-1], []
    for t in range(40):
        token = [x[:, t : t + 1] for x in arguments[: len(arguments) - 1 - fixed]]
        mixed, state = step(state, token, starts[:, t : t + 1], padding[:, t : t + 1])
        got.append(mixed)
    real = ~np.asarray(padding)[:, :40]
    np.testing.assert_allclose(np.concatenate(got, axis=1)[real], np.asarray(wanted)[real], atol=1e-4, rtol=1e-5)


def test_which_form_is_taken():
    assert in_chunks("auto", 4096)
    assert not in_chunks("auto", 1)
    assert in_chunks("chunked", 1)
    assert not in_chunks("scan", 4096)
