"""Mixtures of experts against loops over experts in float64; their forms against each other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config import Capacity, Dropless, Moe
from jaxlm.layers.contracts import Call
from jaxlm.layers.initial import Initial
from jaxlm.layers.moe.module import initial_moe
from jaxlm.layers.moe.slots import limits
from jaxlm.layers.names import flatten
from tests.layers.moe import by_hand
from tests.tiny import CALL, close, tokens

EMBED, ROWS, LENGTH = 8, 4, 10
MIXTRAL = Moe(experts=6, top_k=2, width=12)
DEEPSEEK = Moe(experts=6, top_k=3, width=12, weights="scores", shared=20)
SIGMOID = dataclasses.replace(MIXTRAL, scores="sigmoid", top_k=1, weights="scores")
TIGHT, PAIRS = Capacity(0.7), Capacity(0.6, rows=2)
ODD = Capacity(0.7, rows=3)
"""The last group has one row of the four."""

SEGMENTS = np.array(
    [[1] * 10, [1] * 4 + [2] * 3 + [0] * 3, [0] * 10, [1, 2, 2, 2, 2, 2, 3, 3, 0, 0]],
)
TOKENS = tokens(np.zeros_like(SEGMENTS), SEGMENTS)
X = np.random.default_rng(1).standard_normal((ROWS, LENGTH, EMBED)).astype(np.float32)
KINDS = {
    "mixtral": MIXTRAL,
    "deepseek": DEEPSEEK,
    "sigmoid": SIGMOID,
    "all": dataclasses.replace(MIXTRAL, top_k=6),
}


@functools.cache
def mixture(kind: Moe, seed: int = 0, std: float = 0.7):
    drawn = initial_moe(kind, EMBED, Initial(jax.random.key(0)), 1.0)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(std * rng.standard_normal(leaf.shape), leaf.dtype), drawn)


@jax.jit
def run(model, x, tokens=TOKENS):
    """(outputs, terms)."""
    y, report = model(x, tokens, CALL)
    return y, report.terms


def leaves(model):
    return {name: np.asarray(leaf, np.float64) for name, leaf in flatten(model).items()}


def having(kind, **fields):
    return dataclasses.replace(kind, **fields)


CASES = [(name, dispatch) for name in KINDS for dispatch in (Dropless(), TIGHT)]


@pytest.mark.parametrize(("name", "dispatch"), [*CASES, ("mixtral", PAIRS), ("deepseek", ODD)])
def test_the_loop_over_experts(name, dispatch):
    """Outputs, what is dropped, and the terms; padding goes through the shared experts alone."""
    kind = having(KINDS[name], dispatch=dispatch)
    model, x = mixture(kind), X.astype(np.float64)
    got, terms = run(model, X)
    exact = leaves(model)
    wanted, dropped = by_hand.mixture(exact, x, SEGMENTS, kind)
    if kind.top_k < kind.experts:
        assert by_hand.gap(exact, x, SEGMENTS, kind) >= 1e-4
    np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(terms["dropped"], dropped / kind.top_k, rtol=1e-6)
    assert (dropped > 0) == (dispatch != Dropless()), "a capacity that drops nothing would be no test"
    np.testing.assert_allclose(terms["router_z"], by_hand.router_z(exact, x, SEGMENTS), rtol=1e-5)
    np.testing.assert_allclose(terms["load_balance"], by_hand.load_balance(exact, x, SEGMENTS, kind), rtol=1e-5)


@pytest.mark.parametrize("name", ["deepseek", "sigmoid"])
def test_the_batch_is_one_document(name):
    kind = having(KINDS[name], balance=config.Balance(over="batch"))
    got = run(mixture(kind), X)[1]["load_balance"]
    wanted = by_hand.load_balance(leaves(mixture(kind)), X.astype(np.float64), SEGMENTS, kind)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert abs(run(mixture(KINDS[name]), X)[1]["load_balance"] / 6 - got) > 0.1, "not the mean of 6 documents"


def loss(model, x, kind, segments=TOKENS, call=CALL):
    """Everything that has a gradient, as one number."""
    y, report = model(x, segments, call)
    terms = report.terms
    rng = np.random.default_rng(2)
    aim = jnp.asarray(rng.standard_normal(y.shape[2:]), jnp.float32)
    return (
        jnp.sum(jnp.where((segments.segments > 0)[..., None], y, 0) @ aim)
        + terms["load_balance"]
        + terms["router_z"]
    )


def loss_by_hand(exact, x, kind):
    y, _ = by_hand.mixture(exact, x, SEGMENTS, kind)
    aim = np.random.default_rng(2).standard_normal(y.shape[2:]).astype(np.float32).astype(np.float64)
    balance, z = by_hand.load_balance(exact, x, SEGMENTS, kind), by_hand.router_z(exact, x, SEGMENTS)
    return (y[SEGMENTS > 0] @ aim).sum() + balance + z


@pytest.mark.parametrize("dispatch", [Dropless(), TIGHT], ids=["dropless", "capacity"])
@pytest.mark.parametrize("name", ["mixtral", "deepseek", "sigmoid"])
def test_gradients_are_those_of_the_loop(name, dispatch):
    """Along a random direction of each leaf, by central differences of the loop in float64."""
    kind = having(KINDS[name], dispatch=dispatch)
    model = mixture(kind, std=0.5)
    gradient, dx = jax.jit(jax.grad(lambda m, x: loss(m, x, kind), argnums=(0, 1)))(model, jnp.asarray(X))
    exact, x = leaves(model), X.astype(np.float64)
    rng, h = np.random.default_rng(3), 1e-6
    for name, slope in (flatten(gradient) | {"x": dx}).items():
        direction = rng.standard_normal(slope.shape)

        def moved(step, name=name, direction=direction):
            if name == "x":
                return loss_by_hand(exact, x + step * direction, kind)
            return loss_by_hand(exact | {name: exact[name] + step * direction}, x, kind)

        wanted = (moved(h) - moved(-h)) / (2 * h)
        limit = 2e-5 * np.linalg.norm(slope) * np.sqrt(slope.size)
        assert limit > 0, name
        np.testing.assert_allclose(np.sum(slope * direction), wanted, atol=limit, err_msg=name)


def both(kind, call=CALL, x=X):
    model = mixture(kind)
    gradient = jax.jit(jax.value_and_grad(lambda m, x: loss(m, x, kind, call=call), argnums=(0, 1)))
    return gradient(model, jnp.asarray(x, call.precision.compute))


def test_capacity_for_all_is_dropless():
    """experts / top_k times the even load is every token; values and gradients."""
    kind = DEEPSEEK
    value, gradients = both(kind)
    enough = Capacity(kind.experts / kind.top_k)
    got, got_gradients = both(having(kind, dispatch=enough))
    np.testing.assert_allclose(got, value, rtol=1e-6)
    for one, other in zip(jax.tree.leaves(got_gradients), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6 * np.abs(other).max())
    tight, _ = both(having(kind, dispatch=TIGHT))
    assert abs(tight - value) > 1e-2 * abs(value)


def towards(kind, experts):
    """A mixture whose router sends every token to the given experts, in this order."""
    model = mixture(kind)
    kernel = np.zeros((EMBED, kind.experts), np.float32)
    kernel[0, experts] = 3.0 - 0.1 * np.arange(len(experts))
    return model.replace(router=model.router.replace(kernel=jnp.asarray(kernel)))


def test_all_tokens_to_one_expert():
    """Dropless drops nothing; a capacity takes the first ones of each row."""
    kind = having(MIXTRAL, top_k=1)
    x = X.copy()
    x[..., 0] = 1.0
    for dispatch in (Dropless(), TIGHT):
        model = dataclasses.replace(towards(kind, [4]), config=having(kind, dispatch=dispatch))
        y, terms = run(model, x)
        kernels = (np.asarray(getattr(model.experts, n).kernel[4], np.float64) for n in ("gate", "up", "down"))
        wanted = np.where((SEGMENTS > 0)[..., None], by_hand.gated(x.astype(np.float64), *kernels), 0.0)
        if dispatch == TIGHT:
            most = [2, 1, 0, 1]
            for row, count in enumerate(most):
                wanted[row, count:] = 0.0
            assert float(terms["dropped"]) == 10 + 7 + 8 - 4
        else:
            assert float(terms["dropped"]) == 0.0
        np.testing.assert_allclose(y, wanted, atol=1e-5 * np.abs(wanted).max())
        np.testing.assert_allclose(terms["load_balance"], 6 * 6 * np.exp(3.0) / (5 + np.exp(3.0)), rtol=1e-5)


def test_of_equal_scores_the_first_expert():
    model = towards(MIXTRAL, [])
    y, terms = run(model, X)
    wanted = by_hand.mixture(leaves(model), X.astype(np.float64), SEGMENTS, MIXTRAL)[0]
    np.testing.assert_allclose(y, wanted, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(terms["load_balance"], 6.0, rtol=1e-6), "an even load is 1 for each of 6 documents"


def test_softmax_of_the_chosen_is_renormalized_probabilities():
    """As Mixtral's paper writes it (arXiv:2401.04088, section 2.1)."""
    model = mixture(MIXTRAL)
    exact, x = leaves(model), X.astype(np.float64)
    wanted = np.zeros_like(x)
    for row, pos in zip(*np.nonzero(SEGMENTS), strict=True):
        logits = x[row, pos] @ exact["router.kernel"]
        chosen = by_hand.best(logits, 2)
        for expert, weight in zip(chosen, by_hand.SCORES["softmax"](logits[chosen]), strict=True):
            kernels = (exact[f"experts.{name}.kernel"][expert] for name in ("gate", "up", "down"))
            wanted[row, pos] += weight * by_hand.gated(x[row, pos], *kernels)
    np.testing.assert_allclose(run(model, X)[0], wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("dispatch", [Dropless(), TIGHT], ids=["dropless", "capacity"])
def test_padding_changes_nothing(dispatch):
    """Rows padded with anything at the end, and rows of padding: outputs, terms, and no gradient to padding."""
    kind = having(DEEPSEEK, dispatch=dispatch)
    model = mixture(kind)
    more = np.pad(SEGMENTS, ((0, 3), (0, 7)))
    x = np.random.default_rng(5).standard_normal((ROWS + 3, LENGTH + 7, EMBED)).astype(np.float32) * 50
    x[:ROWS, :LENGTH] = X
    wide = tokens(np.zeros_like(more), more)
    (y, terms), (wanted, wanted_terms) = run(model, x, wide), run(model, X)
    real = SEGMENTS > 0
    np.testing.assert_allclose(y[:ROWS, :LENGTH][real], wanted[real], atol=1e-5)
    for name, term in wanted_terms.items():
        np.testing.assert_allclose(terms[name], term, rtol=1e-6, err_msg=name)
    dx = jax.jit(jax.grad(lambda x: loss(model, x, kind, wide)))(x)
    assert (np.asarray(dx)[more == 0] == 0).all()
    assert (np.abs(dx)[more > 0].max(-1) > 0).all()


def test_packing_changes_nothing():
    """Two documents in one row, or each in a row of its own."""
    model = mixture(MIXTRAL)
    packed = np.array([[1] * 4 + [2] * 6])
    apart = np.array([[1] * 4 + [0] * 6, [1] * 6 + [0] * 4])
    x = X[:1]
    split = np.zeros((2, LENGTH, EMBED), np.float32)
    split[0, :4], split[1, :6] = x[0, :4], x[0, 4:]
    y, terms = run(model, x, tokens(packed, packed))
    each, wanted = run(model, split, tokens(apart, apart))
    np.testing.assert_allclose(y[0], np.concatenate([each[0, :4], each[1, :6]]), atol=1e-5)
    for name, term in wanted.items():
        np.testing.assert_allclose(terms[name], term, rtol=1e-6, err_msg=name)
    over = config.Balance(over="batch")
    whole = run(mixture(having(MIXTRAL, balance=over)), x, tokens(packed, packed))[1]
    assert abs(whole["load_balance"] - terms["load_balance"] / 2) > 1e-2


@pytest.mark.parametrize("dispatch", [Dropless(), TIGHT], ids=["dropless", "capacity"])
def test_terms_add_up_over_micro_batches(dispatch):
    kind = having(MIXTRAL, dispatch=dispatch)
    model = mixture(kind)
    y, whole = run(model, X)
    parts = [run(model, X[i::2], jax.tree.map(lambda leaf, i=i: leaf[i::2], TOKENS)) for i in range(2)]
    for i, (part, _) in enumerate(parts):
        np.testing.assert_allclose(part, y[i::2], atol=1e-5)
    for name, term in whole.items():
        np.testing.assert_allclose(sum(terms[name] for _, terms in parts), term, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("dispatch", [Dropless(), Capacity(0.9)], ids=["dropless", "capacity"])
def test_later_tokens_change_nothing_before_them(dispatch):
    """A capacity that served best choices first would let a later token push an earlier one out."""
    model = mixture(having(MIXTRAL, dispatch=dispatch))
    ones = tokens(np.ones((ROWS, LENGTH), int))
    y, terms = run(model, X, ones)
    if dispatch != Dropless():
        assert terms["dropped"] > 0
    other = X.copy()
    other[:, 6:] = np.random.default_rng(7).standard_normal(other[:, 6:].shape)
    again, _ = run(model, other, ones)
    np.testing.assert_allclose(again[:, :6], y[:, :6], atol=1e-5)
    assert np.abs(again[:, 6:] - y[:, 6:]).max() > 0.1


@pytest.mark.parametrize("dispatch", [Dropless(), TIGHT], ids=["dropless", "capacity"])
def test_bfloat16(dispatch):
    """The router sees the same bfloat16 activations in float32; products are near those in float32."""
    kind = having(DEEPSEEK, dispatch=dispatch)
    narrow = Call(CALL.layout, config.PRECISIONS["bfloat16"])
    x = np.asarray(jnp.asarray(X, jnp.bfloat16), np.float32)
    (got, gradients), (wanted, exact) = both(kind, narrow, x), both(kind, x=x)
    np.testing.assert_allclose(got, wanted, rtol=1e-2)
    assert gradients[1].dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients[0])} == {jnp.dtype("float32")}, "as the parameters"
    close(gradients[0], exact[0], 0.03)


def test_limits():
    """Exact in decimals: ceil(1.1 * 10 * 10 / 10) is 11, though 1.1 in binary is a little more."""
    assert limits(1.1, 20, 10, 10)[[0, 1, 10, 20]].tolist() == [0, 2, 11, 22]
    assert limits(1.25, 4096, 2, 8)[4096] == 1280
    assert limits(1.0, 3, 1, 64).tolist() == [0, 1, 1, 1]
