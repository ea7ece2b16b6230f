"""Answers are found, normalized and compared as the library and the papers' scripts do it."""

import itertools
import math

import numpy as np
import pytest

from jaxlm.config import SQUAD, Normalization
from jaxlm.corpus.answers import extract, number
from jaxlm.evaluate.answers import exact_match, f1, normalize, pass_at, same_number, vote

NUMBER = r"#### *(-?[$0-9.,]+)"


@pytest.mark.parametrize("samples", [1, 2, 5, 8])
def test_pass_at_k_by_enumeration(samples):
    """Of all ways to draw k of the samples, those that hold a right one."""
    for right in range(samples + 1):
        judged = [1] * right + [0] * (samples - right)
        for k in range(1, samples + 1):
            drawn = list(itertools.combinations(judged, k))
            assert pass_at(k, right, samples) == pytest.approx(sum(map(any, drawn)) / len(drawn), abs=1e-12)
    # The estimate that is biased: of draws with replacement.
    assert abs(pass_at(2, 2, 5) - (1 - (1 - 2 / 5) ** 2)) > 0.05


def test_pass_at_k_has_no_bias():
    """Its mean over binomial counts is 1 - (1 - p)^k."""
    samples, p = 6, 0.3
    chances = [math.comb(samples, c) * p**c * (1 - p) ** (samples - c) for c in range(samples + 1)]
    for k in (1, 3, 6):
        found = sum(chance * pass_at(k, c, samples) for c, chance in enumerate(chances))
        assert found == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_votes():
    assert vote(["3", None, "4", "4", "3", None, None]) == "3"
    assert vote(["4", "3", "3"]) == "3"
    assert vote([None, None]) is None
    # As numbers, however large.
    assert vote(["1", "-0", "0", "many", "0.0", "many", "many", "many"], number) == "-0"
    assert vote(["1", "1e9999999", "10e9999998"], number) == "1e9999999"
    assert vote(["many", None], number) is None
    assert vote(["b", "A", "a "], lambda text: normalize(text, SQUAD)) == "A"


@pytest.mark.parametrize(
    ("text", "take", "found"),
    [
        ("so 3 + 4 = 7\n#### 7", "first", "7"),
        ("#### 1,234.\n#### 5", "first", "1,234."),
        ("#### 1,234.\n#### 5", "last", "5"),
        ("#### -$12", "first", "-$12"),
        ("#### none", "first", None),
    ],
)
def test_an_answer_in_a_text(text, take, found):
    assert extract(text, NUMBER, take) == found


def test_without_a_pattern_all_is_the_answer_and_without_a_group_the_match():
    assert extract("  Paris \n", "") == "Paris"
    assert extract("in 1969 and 1970", r"\d{4}", "last") == "1970"
    assert extract("b: yes", r"a: (\w+)|b: (\w+)") == "yes"


def test_numbers():
    for text in ("1000", "$1,000.", "1000.00", "1,000 "):
        assert same_number(text, ["1000"]) == 1
    assert same_number("1001", ["1000"]) == same_number("many", ["1000"]) == same_number("", ["1000"]) == 0
    assert number("nan") is None
    assert same_number("0.1", ["0.10"]) == 1


TEXTS = [
    "The Cat!",
    "the cat",
    "A  cat",
    "cats",
    "an 3 cat's",
    "",
    "Cat, 3",
    "thecat",
    "THE",
    "the",
    "cat",
    "cat!",
    "cat7",
]


@pytest.mark.parametrize(
    ("how", "flags"),
    [
        (Normalization(), {}),
        (Normalization(lowercase=True), {"ignore_case": True}),
        (Normalization(punctuation=True), {"ignore_punctuation": True}),
        (Normalization(digits=True), {"ignore_numbers": True}),
        (Normalization(ignore=(r"(?i)the ", "s$")), {"regexes_to_ignore": [r"(?i)the ", "s$"]}),
        (Normalization(lowercase=True, punctuation=True), {"ignore_case": True, "ignore_punctuation": True}),
    ],
)
def test_equal_as_by_the_library(how, flags):
    metrics = pytest.importorskip("lm_eval.api.metrics", reason="lm_eval is not installed")
    found = 0
    for one, other in itertools.product(TEXTS, TEXTS):
        wanted = metrics.exact_match_hf_evaluate([one], [other], **flags)["exact_match"]
        assert exact_match(one, [other], how) == wanted, (one, other)
        found += one != other and wanted
    assert bool(found) == (how != Normalization())


def test_squads_normalization_and_words_in_common():
    """Numbers of SQuAD's own script, counted by hand."""
    assert normalize("The  cat's an Animal, the!", SQUAD) == "cats animal"
    assert exact_match("the Eiffel Tower.", ["tower", "Eiffel tower"], SQUAD) == 1
    assert exact_match("the Eiffel Towers.", ["tower", "Eiffel tower"], SQUAD) == 0
    # 2 words of 3 and of 2: precision 2/3, recall 1.
    assert f1("big Eiffel tower", ["Eiffel tower"], SQUAD) == pytest.approx(0.8)
    assert f1("big Eiffel tower", ["Paris", "Eiffel tower"], SQUAD) == pytest.approx(0.8)
    assert f1("tower tower", ["Eiffel tower"], SQUAD) == pytest.approx(0.5)
    assert f1("London", ["Eiffel tower"], SQUAD) == 0
    assert f1("the", ["a"], SQUAD) == 1
    assert f1("the", ["cat"], SQUAD) == 0


def test_words_in_common_as_by_a_library():
    """One item's F1 is that of sets where no word comes twice (scikit-learn)."""
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    for _ in range(50):
        one, other = rng.random((2, 6)) < 0.5
        words = np.array(list("uvwxyz"))
        if one.any() and other.any():
            wanted = sklearn.f1_score(other, one, zero_division=0)
            assert f1(" ".join(words[one]), [" ".join(words[other])], SQUAD) == pytest.approx(wanted)
