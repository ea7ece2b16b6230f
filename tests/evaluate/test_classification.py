"""Labels' metrics, against scikit-learn's."""

import numpy as np
import pytest

from jaxlm.evaluate.classification import f1, matthews

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
    assert matthews(gold, predicted) == pytest.approx(metrics.matthews_corrcoef(gold, predicted), abs=1e-9)
    wanted = metrics.f1_score(gold, predicted, average="macro", zero_division=0.0)
    assert f1(gold, predicted) == pytest.approx(wanted, abs=1e-12)
