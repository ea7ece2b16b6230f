"""Filters of a teacher's answers, each against what it is to drop and what it is to keep."""

import random
from decimal import Decimal

import pytest

from jaxlm.corpus.answers import final_number
from jaxlm.distill import judge, reject
from jaxlm.distill.contamination import Items, clean
from jaxlm.distill.novelty import Words, novel, rouge_l
from jaxlm.distill.request import Prompt
from jaxlm.distill.sample import Sample, row


def sample(text, prompt="What is it?", answer="", reason="stop", key="k"):
    return Sample(Prompt(prompt, ({"role": "user", "content": prompt},), answer), 0, text, reason, key, {})


def test_filters_apply_in_turn_and_are_counted():
    samples = [sample("a"), sample("bb"), sample(""), sample("c", reason="length")]
    asked = []

    def spy(left):
        asked.append([one.text for one in left])
        return [None for _ in left]

    filters = {"finished": reject.each(reject.finished), "parse": reject.each(reject.parsed("")), "spy": spy}
    kept, steps = reject.reject(samples, filters | {"length": reject.each(reject.long_enough(2, 3))})
    assert asked == [["a", "bb"]]
    assert [one.text for one in kept] == ["bb"]
    assert [(one.name, one.seen, one.dropped) for one in steps] == [
        ("finished", 4, 1),
        ("parse", 3, 1),
        ("spy", 2, 0),
        ("length", 2, 1),
    ]
    assert steps[0].reasons == {"cut at the most tokens": 1}
    assert row(kept[0], ["finished"])["messages"][-1] == {"role": "assistant", "content": "bb"}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She pays 5 * 3 = <<5*3=15>>15 dollars.\n#### 15", 15),
        ("#### $1,234.50", "1234.50"),
        ("first #### 3, then\n#### 4", 4),
        ("The answer is \\boxed{12,345}.", 12345),
        ("5-3=2", 2),
        ("from 10-20", 20),
        ("it falls to -5", -5),
        ("it falls to −5.", -5),
        ("a loss of -$5", -5),
        ("0.5 or .25", "0.25"),
        ("50%", 50),
        ("one, two", None),
        ("", None),
    ],
)
def test_final_numbers(text, number):
    assert final_number(text) == (None if number is None else Decimal(number))


def test_verifiers():
    right = "Tom has 18 / 2 = 9 apples, 9 x $2 = $18.\n#### 18"
    assert reject.right_number(sample("so he gets $18.00 a day.", answer=right)) is None
    assert reject.right_number(sample("so he gets $18.00, not 20", answer=right)) == "another number"
    assert reject.right_number(sample("I do not know", answer=right)) == "no number"
    exact = reject.right_text(r"answer is (\w+)")
    assert exact(sample("the answer is no ... the answer is B", answer=" B")) is None
    assert exact(sample("the answer is B ... the answer is no", answer="B")) == "another answer"
    assert exact(sample("B", answer="B")) == "no answer"
    assert reject.right_text("")(sample(" B\n", answer="B")) is None


def test_parsed_and_lengths():
    check = reject.parsed(r"<think>.*</think>\s*\S")
    assert check(sample("<think>a\nb</think> c")) is None
    assert check(sample("<think>a\nb</think>  ")) == "does not match"
    assert reject.parsed("")(sample(" \n")) == "empty"
    limits = reject.long_enough(2, 4)
    assert [limits(sample("x" * n)) for n in (1, 2, 4, 5)] == ["too short", None, None, "too long"]
    assert reject.long_enough(0, 0)(sample("x" * 10**6)) is None
    assert reject.finished(sample("x", reason="content_filter")) == "cut by a content filter"
    assert reject.finished(sample("x", reason="tool_calls")) == "ended by tool_calls"


def test_distinct():
    samples = [sample("The fox."), sample("the  fox.\n"), sample("The fox"), sample("The fox.", prompt="other")]
    assert reject.distinct(samples) == [None, "said before", None, None]
    assert reject.distinct([sample("x"), sample("x")])[1] == "said before"


def pairs(count):
    rng = random.Random(0)
    words = [f"w{i}" for i in range(12)]
    return [[" ".join(rng.choices(words, k=rng.randrange(1, 90))) for _ in range(2)] for _ in range(count)]


@pytest.mark.nightly  # the package takes seconds to import
def test_rouge_is_that_of_the_package():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    for one, other in pairs(200):
        wanted = scorer.score(one, other)["rougeL"].fmeasure
        assert abs(rouge_l(Words.of(one), Words.of(other)) - wanted) < 1e-12


def test_rouge_by_the_table():
    """The longest common subsequence by its recurrence, cell by cell."""
    for one, other in pairs(30):
        a, b = one.split(), other.split()
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, word in enumerate(a):
            for j, opposite in enumerate(b):
                longer = max(table[i][j + 1], table[i + 1][j])
                table[i + 1][j + 1] = table[i][j] + 1 if word == opposite else longer
        wanted = 2 * table[-1][-1] / (len(a) + len(b))
        assert abs(rouge_l(Words.of(one), Words.of(other)) - wanted) < 1e-12
    assert rouge_l(Words.of(""), Words.of("")) == 0.0
    assert rouge_l(Words.of("Fox, FOX!"), Words.of("fox fox")) == 1.0
    assert rouge_l(Words.of("吾輩は猫"), Words.of("吾輩は犬")) == 0.75, "writing without spaces"


def test_novelty():
    texts = ["a b c d e f g h i j", "a b c d e f g x y z", "a b c d e f x y z w", "", "!"]
    samples = [sample(text, prompt=f"p{number % 2}") for number, text in enumerate(texts)]
    everyone = novel(0.7, lambda one: "")
    assert everyone(samples) == [None, "alike", None, None, None], "0.7 is not below 0.7, and 0.6 is"
    assert novel(0.7, lambda one: one.prompt.name)(samples) == [None, None, None, None, None]
    assert novel(0.6, lambda one: one.prompt.name)(samples) == [None, None, "alike", None, None]
    assert novel(0.7, lambda one: "", pool=texts[:1])(samples)[0] == "alike"
    rng = random.Random(1)  # what is passed over quickly is what the full comparison would pass over
    words = [f"w{i}" for i in range(15)]
    drawn = [sample(" ".join(rng.choices(words, k=rng.randrange(5, 15)))) for _ in range(60)]
    kept, wanted = [], []
    for one in drawn:
        old = any(rouge_l(Words.of(one.text), Words.of(other)) >= 0.5 for other in kept)
        wanted.append("alike" if old else None)
        if not old:
            kept.append(one.text)
    assert novel(0.5, lambda one: "")(drawn) == wanted
    assert 5 < len(kept) < 55


LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def test_contamination():
    short = "alpha beta gamma delta epsilon zeta eta theta"
    items = Items([[LONG, "short"], [short], ["too short to be looked for"]])
    assert items.short == 1
    assert items.shared("So: ONE two, three four five six seven eight nine ten eleven twelve (thirteen)!")
    assert not items.shared(LONG.replace("seven", "7"))
    assert items.shared(f"he said {short} to her"), "a short text is looked for whole"
    assert not items.shared(short.removesuffix(" theta"))
    assert not items.shared("")
    check = clean(items)
    assert check(sample(LONG)) == "its answer is in the evaluation items"
    assert check(sample("x", prompt=LONG)) == "its prompt is in the evaluation items"
    assert check(sample("x")) is None


def test_judge():
    asked = judge.question(sample("It is {prompt}.", prompt="What {answer}?", key="abc"))
    text = asked.messages[0]["content"]
    assert asked.name == "abc"
    assert "<request>\nWhat {answer}?\n</request>" in text
    assert "<answer>\nIt is {prompt}.\n</answer>" in text, "what stands in braces stays as it is"
    scores = {"Score: 7": 7, "score 3 at first.\nScore: **8.5**": 8.5, "Score: 8/10": 8, "Score: 11": None}
    scores |= {"Score: -3": None, "good": None, "": None}
    for text, wanted in scores.items():
        assert judge.score(text) == wanted, text
    found = judge.scores([Sample(Prompt("abc", ()), 0, "Score: 6", "stop", "z", {})])
    check = judge.good_enough(found, 6)
    assert check(sample("x", key="abc")) is None
    assert judge.good_enough(found, 6.5)(sample("x", key="abc")) == "below 6.5"
    assert check(sample("x", key="other")) == "the judge gave no score"
