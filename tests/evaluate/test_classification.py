"""Labels' metrics, against scikit-learn's."""

import numpy as np
import pytest

from jaxlm.evaluate.classification import accuracy, agreement, confusion, f1, matthews

RNG = np.random.default_rng(0)
GOLD = RNG.choice(6, 300, p=[0.5, 0.2, 0.1, 0.1, 0.1, 0])
CASES = {
    "usual": (GOLD, np.where(RNG.random(300) < 0.3, RNG.integers(0, 6, 300), GOLD)),
    "right": (GOLD, GOLD),
    "wrong": (GOLD, (GOLD + 1) % 5),
    "a class never predicted": (GOLD, np.where(GOLD == 2, 0, GOLD)),
    "a class that is none": (GOLD, np.where(GOLD == 2, 7, GOLD)),
    "one predicted": (GOLD, np.zeros(300, int)),
    "one class": (np.zeros(9, int), np.zeros(9, int)),
    "two": (GOLD % 2, RNG.integers(0, 2, 300)),
}


@pytest.mark.filterwarnings("ignore:A single label")
@pytest.mark.parametrize("case", CASES)
def test_scikit_learn_says_the_same(case):
    metrics = pytest.importorskip("sklearn.metrics")
    gold, predicted = CASES[case]
    np.testing.assert_array_equal(
        confusion(gold, predicted, 8), metrics.confusion_matrix(gold, predicted, labels=range(8))
    )
    assert accuracy(gold, predicted) == pytest.approx(metrics.accuracy_score(gold, predicted), abs=1e-12)
    assert matthews(gold, predicted) == pytest.approx(metrics.matthews_corrcoef(gold, predicted), abs=1e-9)
    for average in ("macro", "micro", "weighted"):
        wanted = metrics.f1_score(gold, predicted, average=average, zero_division=0.0)
        assert f1(gold, predicted, average) == pytest.approx(wanted, abs=1e-12)


def test_averages_differ():
    gold, predicted = CASES["usual"]
    found = [f1(gold, predicted, average) for average in ("macro", "micro", "weighted")]
    assert min(abs(np.diff(sorted(found)))) > 1e-3


def test_the_class_is_among_the_likeliest():
    metrics = pytest.importorskip("sklearn.metrics")
    scores = RNG.normal(size=(300, 6))
    for k in (1, 2, 5):
        wanted = metrics.top_k_accuracy_score(GOLD, scores, k=k, labels=range(6))
        assert agreement(scores, GOLD, k) == pytest.approx(wanted, abs=1e-12)
    assert agreement(np.zeros((300, 6)), GOLD, 5) == 0
