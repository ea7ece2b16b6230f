import math

import numpy as np
import pytest

from jaxlm.evaluate.similarity import cosines, pearson, spearman


def test_correlations():
    """Ranks by hand, with ties sharing theirs; scipy's function is another check only of Pearson's."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 6, 200).astype(float)
    other = np.exp(one + rng.normal(size=200))
    assert pearson(one, other) == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-12)
    ranks = [(v[:, None] > v[None]).sum(1) + ((v[:, None] == v[None]).sum(1) + 1) / 2 for v in (one, other)]
    assert spearman(one, other) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)
    assert spearman(one, np.log(other)) == pytest.approx(spearman(one, other), abs=1e-12)
    assert abs(pearson(one, np.log(other)) - pearson(one, other)) > 0.05
    assert math.isnan(spearman(np.ones(5), np.arange(5.0)))
    assert math.isnan(pearson(np.ones(1), np.ones(1)))


def test_cosines_are_of_pairs():
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(2, 9, 4))
    wanted = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(one, other)]
    np.testing.assert_allclose(cosines(one, other), wanted, atol=1e-12)
    assert cosines(np.zeros((1, 4)), one[:1])[0] == 0
