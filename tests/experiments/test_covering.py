"""A language whose contexts go on in several ways, and what is measured of its students."""

import numpy as np
import pytest

from experiments.benchmarks.covering import BEGINNINGS, measures, scored
from experiments.teachers.phrases import COUNT, LETTERS, SHARES, entropy, phrases

VOCAB = 260
PHRASES = float(np.exp(-np.sum(np.array(SHARES) * np.log(SHARES))))
"""That there are of a capital letter, the rarer ones counting less."""


def given(ids, shares, sure=1.0):
    """Letters as a model knows them that gives phrases such shares; the rest goes to a token that is no letter."""
    true, found = ids[..., -LETTERS:], np.zeros((*ids.shape[:3], LETTERS, VOCAB))
    for phrase, share in enumerate(shares):
        np.put_along_axis(found[..., 0, :], true[:, :, phrase, 0][:, :, None, None], sure * share, axis=-1)
    np.put_along_axis(found[..., 1:, :], true[..., 1:, None], sure, axis=-1)
    found[..., 1] += 1 - sure
    return found


def test_who_knows_the_language_says_nothing_else():
    found = measures(given(scored(), SHARES), scored())
    assert found == pytest.approx({"impossible": 0, "whole": 1, "phrases": PHRASES}, abs=1e-12)


def test_a_student_that_seeks_and_one_that_blurs():
    seeks = measures(given(scored(), (1, *(0,) * (COUNT - 1))), scored())
    assert seeks == pytest.approx({"impossible": 0, "whole": 1, "phrases": 1}, abs=1e-12)
    blurs = measures(given(scored(), SHARES, sure=0.9), scored())
    wanted = {"impossible": 0.1, "whole": 0.9**LETTERS, "phrases": PHRASES}
    assert blurs == pytest.approx(wanted, abs=1e-12)

    rare = given(scored(), SHARES)
    rare[:, :, -1, 1:] = 1 / VOCAB
    found = measures(rare, scored())
    assert found["impossible"] == pytest.approx(SHARES[-1] * (1 - 1 / VOCAB) * (LETTERS - 1) / LETTERS)
    assert found["whole"] == pytest.approx(1 - SHARES[-1])


def test_the_language():
    known = phrases()
    assert len(known) == 26
    assert all(len({phrase[0] for phrase in own}) == COUNT for own in known.values())
    assert all(len(phrase) == LETTERS for own in known.values() for phrase in own)
    assert sum(SHARES) == pytest.approx(1)
    assert entropy() == pytest.approx((np.log2(26) + np.log2(PHRASES)) / (1 + LETTERS))
    assert scored().shape[:3] == (26, BEGINNINGS, COUNT)
