"""Clusters, and what they share with classes, against scikit-learn's."""

import numpy as np
import pytest

from jaxlm.config.errors import UsageError
from jaxlm.evaluate.clustering import adjusted_rand, kmeans, normalized_mutual_information, purity, table

RNG = np.random.default_rng(0)
GOLD = RNG.integers(0, 7, 400)
CASES = {
    "usual": (GOLD, np.where(RNG.random(400) < 0.4, RNG.integers(0, 9, 400), GOLD)),
    "the same by other names": (GOLD, (3 * GOLD + 2) % 7),
    "chance": (GOLD, RNG.integers(0, 5, 400)),
    "one cluster": (GOLD, np.zeros(400, int)),
    "one each": (GOLD, np.arange(400)),
    "all one": (np.zeros(5, int), np.zeros(5, int)),
}


@pytest.mark.parametrize("case", CASES)
def test_scikit_learn_says_the_same(case):
    metrics = pytest.importorskip("sklearn.metrics")
    gold, found = CASES[case]
    for ours, theirs in (
        (normalized_mutual_information, metrics.normalized_mutual_info_score),
        (adjusted_rand, metrics.adjusted_rand_score),
    ):
        assert ours(gold, found) == pytest.approx(theirs(gold, found), abs=1e-9)
        assert ours(found, gold) == pytest.approx(ours(gold, found), abs=1e-12)
    assert purity(gold, found) == metrics.cluster.contingency_matrix(gold, found).max(axis=0).sum() / len(gold)


def groups(rng, k=12, each=40, spread=0.5, embed=8):
    middles = 3 * rng.normal(size=(k, embed))
    labels = np.repeat(np.arange(k), each)
    return middles[labels] + spread * rng.normal(size=(k * each, embed)), labels


def test_clusters_are_found():
    """As good as scikit-learn's of the same vectors; where groups overlap both end in one of many minima."""
    cluster = pytest.importorskip("sklearn.cluster")
    vectors, labels = groups(np.random.default_rng(1))
    found = kmeans(vectors, 12, seed=3)
    assert purity(labels, found.labels) == 1
    for spread, more in ((0.5, 1e-6), (2.0, 0.01)):
        vectors, _ = groups(np.random.default_rng(2), spread=spread)
        wanted = np.mean([cluster.KMeans(12, n_init=10, random_state=i).fit(vectors).inertia_ for i in range(2)])
        found = np.mean([kmeans(vectors, 12, seed=i).inertia for i in range(2)])
        assert abs(found / wanted - 1) < more


def test_the_result_is_lloyds():
    """Centers are means of their items, whose nearest center is their own; the same seed finds the same."""
    vectors, _ = groups(np.random.default_rng(3), spread=2.0)
    vectors = (vectors + 100).astype(np.float32)
    found = kmeans(vectors, 12, restarts=2)
    means = np.stack([vectors[found.labels == i].mean(axis=0) for i in range(12)])
    np.testing.assert_allclose(found.centers, means, rtol=1e-5)
    distances = ((vectors[:, None].astype(float) - found.centers[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(distances.argmin(axis=1), found.labels)
    assert found.inertia == pytest.approx(distances.min(axis=1).sum(), rel=1e-5)
    np.testing.assert_array_equal(kmeans(vectors, 12, restarts=2).labels, found.labels)
    assert kmeans(vectors, 12, restarts=8).inertia <= found.inertia


def test_first_centers_are_spread():
    """Of twenty groups one start of k-means++ finds nearly all; centers drawn alike leave several out."""
    found = []
    for seed in range(10):
        vectors, labels = groups(np.random.default_rng(seed), k=20, spread=0.1)
        found.append(normalized_mutual_information(labels, kmeans(vectors, 20, restarts=1, seed=seed).labels))
    assert np.mean(found) > 0.985


def test_no_cluster_is_empty():
    """Many equal vectors, and as many clusters as distinct ones."""
    vectors = np.repeat(np.eye(6), [50, 1, 1, 30, 2, 1], axis=0)
    found = kmeans(vectors, 6, restarts=1)
    assert found.inertia < 1e-12
    np.testing.assert_array_equal(np.sort(np.bincount(found.labels)), [1, 1, 1, 2, 30, 50])
    with pytest.raises(UsageError, match="7 clusters of 6 distinct vectors"):
        kmeans(vectors, 7)


def test_a_table_of_both():
    np.testing.assert_array_equal(table(np.array([4, 4, 9]), np.array([1, 0, 1])), [[1, 1], [0, 1]])
