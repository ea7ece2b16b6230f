"""Probes and neighbors, against scikit-learn's."""

import numpy as np
import pytest

from jaxlm.config.errors import UsageError
from jaxlm.evaluate import probe
from jaxlm.evaluate.probe import fit, fit_probe, vote

RNG = np.random.default_rng(0)
MIDDLES = RNG.normal(size=(4, 12))


def items(n, rng=RNG, spread=2.0, scale=1.0):
    labels = rng.integers(0, 4, n)
    return (MIDDLES[labels] + spread * rng.normal(size=(n, 12))) * scale + 5, labels


VECTORS, LABELS = items(300)


@pytest.mark.parametrize("penalty", [0.1, 1.0, 30.0])
def test_the_optimum_is_scikit_learns(penalty):
    linear = pytest.importorskip("sklearn.linear_model")
    standard = pytest.importorskip("sklearn.preprocessing").StandardScaler().fit(VECTORS)
    reference = linear.LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000)
    reference.fit(standard.transform(VECTORS), LABELS)
    found = fit(VECTORS, LABELS, 4, penalty)
    np.testing.assert_allclose(found.weights.T, reference.coef_, atol=1e-5)
    np.testing.assert_allclose(found.bias - found.bias.mean(), reference.intercept_, atol=1e-5)
    wanted = reference.decision_function(standard.transform(VECTORS[:9]))
    scores = found(VECTORS[:9])
    np.testing.assert_allclose(scores - scores.mean(axis=1, keepdims=True), wanted, atol=1e-4)
    weaker = fit(VECTORS, LABELS, 4, penalty / 2)
    assert np.abs(weaker.weights - found.weights).max() > 1e-3


def test_scales_do_not_matter():
    """Parts of a vector a million times as large, and one that never changes."""
    other = np.column_stack([VECTORS * np.logspace(-3, 3, 12), np.full(300, 7.0)])
    plain, scaled = fit(VECTORS, LABELS, 4, 1.0), fit(other, LABELS, 4, 1.0)
    np.testing.assert_allclose(scaled(other), plain(VECTORS), atol=1e-4)
    np.testing.assert_allclose(scaled.weights[-1], 0, atol=1e-9)


def test_the_penalty_is_chosen():
    """Where vectors are mostly noise a strong one, where classes are far apart a weak one."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(60, 50))
    labels = rng.integers(0, 4, 60)
    assert fit_probe(noise, labels, 4).penalty >= 100
    vectors, labels = items(400, rng, spread=0.8)
    found = fit_probe(vectors, labels, 4)
    assert found.penalty <= 1
    test, gold = items(2000, rng, spread=0.8)
    assert np.mean(found(test).argmax(axis=1) == gold) > 0.93


def test_the_penalty_is_chosen_on_items_apart(monkeypatch):
    """The items that choose are none of those that were fitted; in the end all are."""
    seen = []

    def watched(vectors, labels, *rest):
        seen.append(vectors)
        return fit(vectors, labels, *rest)

    monkeypatch.setattr(probe, "fit", watched)
    fit_probe(VECTORS, LABELS, 4)
    assert [len(one) for one in seen] == [240] * (len(seen) - 1) + [300]
    assert len(seen) > 3


def test_neighbors_vote():
    neighbors = pytest.importorskip("sklearn.neighbors")
    test, _ = items(200)
    for k in (1, 7):
        reference = neighbors.KNeighborsClassifier(k, metric="cosine").fit(VECTORS, LABELS)
        wanted = reference.predict_proba(test)
        np.testing.assert_allclose(vote(VECTORS, LABELS, test, 4, k), wanted, atol=1e-8)
    euclid = neighbors.KNeighborsClassifier(7).fit(VECTORS, LABELS).predict_proba(test)
    assert np.abs(vote(VECTORS, LABELS, test, 4, 7) - euclid).max() > 0.1


def test_the_nearer_of_two_wins():
    training = np.array([[1.0, 0.0], [0.0, 1.0]])
    votes = vote(training, np.array([1, 0]), np.array([[0.9, 0.5], [0.5, 0.9]]), 2, 2)
    np.testing.assert_array_equal(votes.argmax(axis=1), [1, 0])


def test_refusals():
    with pytest.raises(UsageError, match="one class"):
        fit_probe(VECTORS, np.zeros(300, int), 4)
    with pytest.raises(UsageError, match="a probe of 4 items"):
        fit_probe(VECTORS[:4], np.arange(4), 4)
    with pytest.raises(UsageError, match="the 301 nearest of 300"):
        vote(VECTORS, LABELS, VECTORS, 4, 301)
