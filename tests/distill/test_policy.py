"""Texts of a student's own: what is drawn, by whom, and the gradient of the reverse KL of whole texts."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.config.objective import whole_rows
from jaxlm.config.objective_check import objective_problems
from jaxlm.config.special import Special
from jaxlm.distill.build import build
from jaxlm.distill.policy import importance, judged, mixture, returns, rollout
from jaxlm.layers.logprob import log_probabilities
from jaxlm.objectives.objective import Writes
from tests.tiny import CALL, GLOBAL, LOCAL, SIZES, packed_batch, random_model

KIND = config.Decoder(**SIZES, layers=1, block=GLOBAL)
HER_KIND = config.Decoder(vocab=72, embed=24, layers=2, block=LOCAL)
STUDENT, TEACHER = random_model(KIND), random_model(HER_KIND, seed=1)
BATCH = packed_batch(KIND)
TOKENS, STOP = 6, 3
GRADIENT = config.PolicyGradient(0.2, "length", TOKENS, 2)
GREEDY = config.OnPolicy(1.0, TOKENS, 2, temperature=0.0)


@functools.cache
def compiled(policy):
    return jax.jit(lambda batch, key: rollout(policy, STUDENT, TEACHER, batch, key, CALL, stop=STOP))


def drawn(policy, batch=BATCH, seed=0):
    return jax.device_get(compiled(policy)(batch, jax.random.key(seed)))


@jax.jit
def scores(model, inputs):
    return model.logits(model(inputs, CALL).hidden, CALL)


def logs(model, batch):
    return np.asarray(log_probabilities(scores(model, batch.inputs)))


def test_a_row_is_a_beginning_and_what_the_student_makes_of_it():
    """Greedy: each drawn token is the likeliest after those before it, and the target of the one before."""
    got = drawn(GREEDY)
    best = logs(STUDENT, jax.tree.map(jnp.asarray, got)).argmax(-1)
    first = np.asarray(BATCH.inputs.segments) == np.asarray(BATCH.inputs.segments)[:, :1]
    for row in range(8):
        count = int(got.weights[row].sum())
        assert 1 <= count <= TOKENS
        assert first[row, :2].all()
        np.testing.assert_array_equal(got.inputs.ids[row, :2], np.asarray(BATCH.inputs.ids)[row, :2])
        where = slice(1, 1 + count)
        np.testing.assert_array_equal(got.targets[row, where], best[row, where])
        np.testing.assert_array_equal(got.targets[row, where], got.inputs.ids[row, 2 : 2 + count])
        np.testing.assert_array_equal(got.weights[row], (np.arange(12) >= 1) & (np.arange(12) < 1 + count))
        np.testing.assert_array_equal(got.inputs.segments[row], np.arange(12) < 2 + count)
        np.testing.assert_array_equal(got.inputs.positions[row, : 2 + count], np.arange(2 + count))
        ended = got.targets[row, count] == STOP
        assert count == TOKENS or ended
    np.testing.assert_array_equal(got.rows, BATCH.rows)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (got, BATCH))
    assert shapes[0] == shapes[1]


def test_a_beginning_ends_where_targets_begin():
    starts = np.array([1, 0, 2, 4, 1, 9, 2, 0])
    weights = jnp.where(jnp.arange(12)[None] >= starts[:, None], BATCH.weights + 0.1, 0.0)
    got = drawn(dataclasses.replace(GREEDY, prompt=0), BATCH.replace(weights=weights))
    ends = np.asarray(BATCH.inputs.segments == 1).sum(1)
    wanted = np.minimum(np.minimum(starts, ends - 1), 12 - TOKENS - 1)
    np.testing.assert_array_equal(got.weights.argmax(1), wanted)


def test_rows_know_nothing_of_each_other():
    """Half of the rows, and another order, give the same texts; another key gives others."""
    policy = config.OnPolicy(1.0, TOKENS, 2)
    whole, other = drawn(policy), drawn(policy, seed=1)
    part = jax.tree.map(lambda x: x[jnp.array([5, 0, 3])], BATCH)
    got = drawn(policy, part)
    np.testing.assert_array_equal(got.inputs.ids, whole.inputs.ids[[5, 0, 3]])
    assert not np.array_equal(whole.inputs.ids, other.inputs.ids)


def test_a_share_of_batches():
    half = config.OnPolicy(0.5, TOKENS, 2)
    found = [np.array_equal(drawn(half, seed=seed).targets, BATCH.targets) for seed in range(24)]
    assert 5 <= sum(found) <= 19
    off = rollout(config.OffPolicy(), STUDENT, TEACHER, BATCH, jax.random.key(0), CALL, stop=STOP)
    assert off is BATCH


@pytest.mark.nightly
def test_no_gradient_goes_through_drawing():
    def value(model):
        batch = rollout(GRADIENT, model, TEACHER, BATCH, jax.random.key(0), CALL, stop=STOP)
        return jnp.sum(batch.extra["returns"] + batch.extra["importance"])

    gradient = jax.jit(jax.grad(value))(STUDENT)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


# --- MiniLLM -----------------------------------------------------------------------------------------------


def test_a_mixture_draws_from_both():
    """Log-probabilities of mix p + (1 - mix) q over the shared tokens, token by token as all at once."""
    both, batch = mixture(STUDENT, TEACHER, 0.3), BATCH
    p, q = (np.exp(np.asarray(log_probabilities(jnp.asarray(x)))) for x in _shared(batch))
    got = np.exp(np.asarray(scores(both, batch.inputs)))
    real = np.asarray(batch.inputs.segments) > 0
    np.testing.assert_allclose(got[real], (0.3 * p + 0.7 * q)[real], atol=1e-6)
    assert np.abs(got - p)[real].max() > 0.01
    step = jax.jit(lambda inputs, cache: both(inputs, CALL, cache=cache))
    cache = both.empty_cache(8, 16, CALL)
    found = []
    for place in range(3):
        one = jax.tree.map(lambda x, place=place: x[:, place : place + 1], batch.inputs)
        output = step(one, cache)
        cache = output.cache
        found.append(np.exp(np.asarray(both.logits(output.hidden, CALL)))[:, 0])
    np.testing.assert_allclose(np.stack(found, 1), got[:, :3], atol=1e-6)


def _shared(batch):
    theirs, ours = (scores(model, batch.inputs) for model in (TEACHER, STUDENT))
    return theirs[..., :64], ours


def test_what_a_token_leads_to():
    """By hand, of rows with padding and a beginning; the control counts what was not drawn."""
    rewards = jnp.asarray([[9.0, 1.0, 2.0, 4.0, 9.0], [9.0, 9.0, 3.0, 5.0, 7.0]])
    weights = jnp.asarray([[0.0, 1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(returns(rewards, weights, "sum"), [[0, 6, 4, 0, 0], [0, 0, 12, 7, 0]])
    np.testing.assert_array_equal(returns(rewards, weights), [[0, 3, 4, 0, 0], [0, 0, 6, 7, 0]])
    assert np.abs(returns(rewards, jnp.ones_like(weights)) - returns(rewards, weights)).max() > 1
    np.testing.assert_allclose(importance(jnp.log(jnp.asarray([[2.0, 0.5]])), 0.2), [[1 / 1.2, 1 / 0.9]], rtol=1e-6)


def test_the_gradient_is_that_of_whole_texts():
    """Every text of three tokens of three, in the student's probabilities: the sum of each step's own reverse KL
    and of returns times scores has the gradient of the reverse KL of texts. Steps alone, and rewards counted twice,
    do not.
    """
    rng, size, length = np.random.default_rng(0), 3, 3
    texts = list(itertools.product(range(size), repeat=length))
    prefixes = [text[:n] for n in range(length) for text in itertools.product(range(size), repeat=n)]
    place = {prefix: i for i, prefix in enumerate(prefixes)}
    steps = jnp.asarray([[place[text[:n]] for n in range(length)] for text in texts])
    chosen = jnp.asarray(texts)
    student, teacher = (jnp.asarray(rng.standard_normal((len(prefixes), size)), jnp.float32) for _ in range(2))

    def of_texts(table):
        each = log_probabilities(table)[steps, chosen]
        return each, jnp.sum(each, axis=1)

    def exact(table):
        own, hers = of_texts(table)[1], of_texts(teacher)[1]
        return jnp.sum(jnp.exp(own) * (own - hers))

    def surrogate(table, ahead):
        q, p = log_probabilities(table)[steps], log_probabilities(teacher)[steps]
        own = of_texts(table)[0]
        single = jnp.sum(jnp.exp(q) * (q - p), axis=-1)
        probability = jax.lax.stop_gradient(jnp.exp(of_texts(table)[1]))
        return jnp.sum(probability * jnp.sum(single - ahead * own, axis=1))

    rewards = of_texts(teacher)[0] - of_texts(student)[0]
    ones = jnp.ones_like(rewards)
    wanted = jax.grad(exact)(student)
    got = jax.grad(surrogate)(student, returns(rewards, ones, "sum"))
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    for wrong in (0 * ones, returns(rewards, ones, "sum") + rewards):
        assert np.abs(jax.grad(surrogate)(student, wrong) - wanted).max() > 1e-2


def test_the_objective_of_drawn_texts():
    """Both terms by hand, and of texts of the data the divergence alone."""
    kind = config.Distillation(response=config.ReverseKl(), labels=0.0, weight=1.0, policy=GRADIENT)
    assert not list(objective_problems(kind, KIND))
    objective = build(kind, KIND, lambda: Special(SIZES["vocab"], 0, 2, STOP))
    assert objective.stop == STOP
    batch = objective.prepare(jax.tree.map(jnp.asarray, drawn(kind.policy)), jax.random.key(0))
    run = jax.jit(lambda batch: objective.totals(STUDENT, batch, None, CALL, {"teacher": TEACHER})[0])
    sums = run(batch)
    p, q = (np.asarray(log_probabilities(jnp.asarray(x)), np.float64) for x in _shared(batch))
    index = np.asarray(batch.targets)[..., None]
    log_q = np.take_along_axis(q, index, -1)[..., 0]
    log_p = np.take_along_axis(np.asarray(logs(TEACHER, batch), np.float64), index, -1)[..., 0]
    weights = np.asarray(batch.weights) * 1 / (0.2 * np.exp(log_p - log_q) + 0.8)
    np.testing.assert_allclose(sums["divergence"], (weights * (np.exp(q) * (q - p)).sum(-1)).sum(), rtol=1e-5)
    ahead = np.asarray(returns(jnp.asarray(log_p - log_q), batch.weights))
    np.testing.assert_allclose(sums["returns"], -(weights * ahead * log_q).sum(), rtol=1e-4)
    np.testing.assert_allclose(judged(STUDENT, batch, CALL), log_q, atol=1e-5)
    data = objective.prepare(BATCH, jax.random.key(0))
    plain = run(data)
    assert plain["returns"] == 0
    off = dataclasses.replace(objective, policy=config.OffPolicy())
    same = jax.jit(lambda batch: off.totals(STUDENT, batch, None, CALL, {"teacher": TEACHER})[0])(BATCH)
    np.testing.assert_allclose(plain["divergence"], same["divergence"], rtol=1e-6)


def test_what_does_not_fit_is_refused_by_name():
    large = random_model(dataclasses.replace(KIND, vocab=80))
    for policy, model, message in (
        (GREEDY, large, "model.vocab is 80: the student could draw tokens beyond the teacher's 72"),
        (config.OnPolicy(1.0, 12), STUDENT, r"policy\.tokens is 12: rows of 12 tokens need 1 for a beginning"),
    ):
        with pytest.raises(UsageError, match=message):
            rollout(policy, model, TEACHER, BATCH, jax.random.key(0), CALL, stop=STOP)
    wrong = config.Distillation(config.FillInTheMiddle(), policy=config.PolicyGradient(mix=1.0))
    assert whole_rows(config.Distillation(policy=GREEDY)), "rows are written anew"
    assert not whole_rows(config.Distillation())
    found = "\n".join(objective_problems(wrong, KIND))
    for part in ("mix is 1.0", "objective.base is FillInTheMiddle"):
        assert part in found
    (found,) = objective_problems(config.Distillation(policy=GREEDY), KIND)
    assert "labels is 0.5: OnPolicy draws texts that have no labels" in found
    wrong = dataclasses.replace(wrong, policy=config.PolicyGradient(), labels=0.0)
    (found,) = objective_problems(dataclasses.replace(wrong, base=config.Autoregressive()), KIND)
    assert found == "objective.response is SoftLabels: PolicyGradient needs reverse_kl"


def test_the_objective_draws_what_the_policy_does():
    """In the step, before anything is prepared; without a policy the rows are those that are given."""
    kind = config.Distillation(response=config.ReverseKl(), labels=0.0, weight=1.0, policy=GRADIENT)
    objective = build(kind, KIND, lambda: Special(SIZES["vocab"], 0, 2, STOP))
    assert isinstance(objective, Writes)
    key = jax.random.key(1)
    made = jax.jit(lambda batch: objective.rollout(STUDENT, batch, key, CALL, {"teacher": TEACHER}))(BATCH)
    wanted = compiled(GRADIENT)(BATCH, key)
    jax.tree.map(np.testing.assert_array_equal, made, wanted)
    off = dataclasses.replace(objective, policy=config.OffPolicy())
    assert off.rollout(STUDENT, BATCH, key, CALL, {}) is BATCH


def test_labels_beside_drawn_texts():
    """Rows of an odd number are the data's, and have labels alone; those of an even one are the student's."""
    kind = config.Distillation(response=config.ReverseKl(), labels=0.5, weight=1.0, policy=GRADIENT)
    assert not list(objective_problems(kind, KIND))
    objective = build(kind, KIND, lambda: Special(SIZES["vocab"], 0, 2, STOP))
    key, frozen = jax.random.key(1), {"teacher": TEACHER}
    made = jax.jit(lambda batch: objective.rollout(STUDENT, batch, key, CALL, frozen))(BATCH)
    own = compiled(GRADIENT)(BATCH, key)
    even = np.asarray(BATCH.rows) % 2 == 0
    assert 0 < even.sum() < len(even)
    for name in ("inputs", "targets", "weights", "documents"):
        got, drawn, given = (jax.tree.leaves(getattr(one, name)) for one in (made, own, BATCH))
        for a, b, c in zip(got, drawn, given, strict=True):
            np.testing.assert_array_equal(a, np.where(even[:, None], b, c))

    run = jax.jit(lambda batch: (objective.totals(STUDENT, batch, None, CALL, frozen)[0], objective.weights(batch)))
    sums, weights = run(made)
    alone = dataclasses.replace(objective, labels=0.0)
    parts = {
        "divergence": (alone, own, even),
        "returns": (alone, own, even),
        "cross_entropy": (dataclasses.replace(objective, policy=config.OffPolicy()), BATCH, ~even),
    }
    for term, (other, batch, rows) in parts.items():
        some = jax.tree.map(lambda x, rows=rows: x[rows], batch)
        total = jax.jit(lambda b, other=other: other.totals(STUDENT, b, None, CALL, frozen)[0])(some)[term]
        np.testing.assert_allclose(sums[term], total, rtol=2e-6, err_msg=term)
        np.testing.assert_allclose(weights[term], np.asarray(some.weights).sum(), err_msg=term)
    data = objective.prepare(BATCH, key)  # held-out text: all of it has labels
    np.testing.assert_allclose(run(data)[1]["cross_entropy"], np.asarray(BATCH.weights).sum())
