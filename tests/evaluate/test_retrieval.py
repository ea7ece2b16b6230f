"""Search and its metrics, against scikit-learn's and by hand."""

import numpy as np
import pytest

from jaxlm.evaluate import retrieval
from jaxlm.evaluate.retrieval import discounted_gain, nearest, ranks, recall, reciprocal_rank

RNG = np.random.default_rng(0)
QUERIES, DOCUMENTS = RNG.normal(size=(40, 16)), RNG.normal(size=(90, 16))
RELEVANT = [sorted(RNG.choice(90, size=1 + i % 3, replace=False).tolist()) for i in range(40)]


def cosines():
    return (QUERIES / np.linalg.norm(QUERIES, axis=1)[:, None]) @ (
        DOCUMENTS / np.linalg.norm(DOCUMENTS, axis=1)[:, None]
    ).T


@pytest.mark.parametrize("k", [1, 5, 90])
def test_scikit_learn_says_the_same(k):
    metrics = pytest.importorskip("sklearn.metrics")
    truth = np.zeros((40, 90), int)
    for row, wanted in enumerate(RELEVANT):
        truth[row, wanted] = 1
    found = ranks(QUERIES, DOCUMENTS, RELEVANT)
    gains = [metrics.ndcg_score(truth[[i]], cosines()[[i]], k=k) for i in range(40)]
    np.testing.assert_allclose(discounted_gain(found, k), gains, atol=1e-9)
    single = [i for i, wanted in enumerate(RELEVANT) if len(wanted) == 1]
    reciprocal = metrics.label_ranking_average_precision_score(truth[single], cosines()[single])
    assert reciprocal_rank([found[i] for i in single]).mean() == pytest.approx(reciprocal, abs=1e-9)
    order = np.argsort(-cosines(), axis=1)[:, :k]
    wanted = [np.mean(np.isin(RELEVANT[i], order[i])) for i in range(40)]
    np.testing.assert_allclose(recall(found, k), wanted, atol=1e-12)


def test_neighbors_are_scikit_learns():
    neighbors = pytest.importorskip("sklearn.neighbors")
    found, values = nearest(QUERIES, DOCUMENTS, 7)
    reference = neighbors.NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(DOCUMENTS)
    distances, places = reference.kneighbors(QUERIES)
    np.testing.assert_array_equal(found, places)
    np.testing.assert_allclose(values, 1 - distances, atol=1e-9)


def test_blocks_do_not_show(monkeypatch):
    wanted = nearest(QUERIES, DOCUMENTS, 5), ranks(QUERIES, DOCUMENTS, RELEVANT)
    monkeypatch.setattr(retrieval, "AT_ONCE", 7 * 90)
    found = nearest(QUERIES, DOCUMENTS, 5), ranks(QUERIES, DOCUMENTS, RELEVANT)
    np.testing.assert_array_equal(found[0][0], wanted[0][0])
    for one, other in zip(found[1], wanted[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_by_hand():
    """Documents at angles of 0, 30, 60 and 90 degrees from the query."""
    documents = np.array([[np.cos(a), np.sin(a)] for a in np.radians([90, 30, 0, 60])])
    query = np.array([[2.0, 0.0]])
    (found,) = ranks(query, documents, [[0, 1]])
    np.testing.assert_array_equal(found, [2, 4])
    assert recall([found], 1)[0] == 0
    assert recall([found], 2)[0] == 0.5
    assert reciprocal_rank([found])[0] == 0.5
    best = 1 + 1 / np.log2(3)
    assert discounted_gain([found], 4)[0] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / best)
    assert discounted_gain([found], 3)[0] == pytest.approx(1 / np.log2(3) / best)


def test_ties_are_lost():
    """Vectors that are all alike, or zero, find nothing."""
    for query in (np.ones((1, 3)), np.zeros((1, 3))):
        (found,) = ranks(query, np.ones((10, 3)), [[0, 4]])
        np.testing.assert_array_equal(found, [9, 10])
