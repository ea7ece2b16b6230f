"""Drawn texts end where they are to end, and no row knows of another."""

import dataclasses

import numpy as np
import pytest

from jaxlm.config import Choices, Generation, Records
from jaxlm.config.errors import UsageError
from jaxlm.config.sampling import Options
from jaxlm.evaluate import score as scoring
from jaxlm.evaluate.ask import ask
from jaxlm.evaluate.choices import _question, _worked, normalized
from jaxlm.evaluate.draw import STEPS, Drawn, before, draw
from jaxlm.evaluate.tokens import opening
from jaxlm.sampling.text import text_pieces
from tests.evaluate.subjects import greedy, texts, tiny
from tests.tiny import KINDS, random_model

TOKENS = 20
GREEDY = Options(tokens=TOKENS, temperature=0.0)


def prompts(count):
    return [opening(tiny().tokenizer, text) for text in texts(count, longest=12)]


def test_greedy_text_is_that_of_the_likeliest_tokens():
    """A prompt longer than leaves room is cut on the left."""
    long = opening(tiny().tokenizer, "abcdefgh " * 10)
    asked = [*prompts(3), long]
    found = draw(tiny(), asked, GREEDY, ())
    assert [each.cut for (each,) in found] == [False, False, False, True]
    for prompt, (one,) in zip(asked, found):
        ids = greedy(tiny(), prompt[-(tiny().length - TOKENS) :], TOKENS)
        assert one.text == "".join(text_pieces(tiny().tokenizer, [ids]))
    assert TOKENS > STEPS


def test_a_text_ends_before_a_stop_string():
    asked = prompts(3)
    whole = [each.text for (each,) in draw(tiny(), asked, GREEDY, ())]
    # Two characters of the middle: they are of several tokens.
    stop = (whole[0][5:7], whole[1][3:5])
    found = [each.text for (each,) in draw(tiny(), asked, GREEDY, stop)]
    assert found == [before(text, stop) for text in whole]
    assert len(found[0]) <= 5 < len(whole[0])
    assert before("abcab", ("ca", "b")) == "a"
    assert before("abcab", ()) == before("abcab", ("x",)) == "abcab"


def test_samples_differ_and_depend_on_nothing_else(monkeypatch):
    options = Options(tokens=6, temperature=1.0, samples=3)
    asked = prompts(2)
    found = draw(tiny(), asked, options, ())
    assert all(len({one.text for one in each}) == 3 for each in found)
    assert draw(tiny(), asked[1:], dataclasses.replace(options, samples=2), ()) == [found[1][:2]]
    assert draw(tiny(), asked, dataclasses.replace(options, seed=1), ()) != found
    monkeypatch.setattr(scoring, "TOKENS", 32)
    assert draw(tiny(), asked, options, ()) == found


def test_prompts_are_seen_as_was_asked():
    """By default as the model was trained to see them."""
    asked, found = prompts(3), {}
    for prefixed in (False, True):
        for reading in ("trained", "causal", "prefix"):
            options = dataclasses.replace(GREEDY, reading=reading)
            found[prefixed, reading] = draw(tiny(prefixed=prefixed), asked, options, ())
    assert found[False, "trained"] == found[False, "causal"] == found[True, "causal"]
    assert found[True, "trained"] == found[True, "prefix"] == found[False, "prefix"]
    assert found[False, "causal"] != found[False, "prefix"]


def test_what_cannot_be_drawn():
    with pytest.raises(UsageError, match=r"draw.tokens is 64: the model reads 64 tokens"):
        draw(tiny(), prompts(1), Options(tokens=64), ())
    subject = dataclasses.replace(tiny(), model=random_model(KINDS["encoder"]))
    with pytest.raises(UsageError, match="goes on with no text"):
        draw(subject, prompts(1), GREEDY, ())


@pytest.fixture
def questions(tmp_path):
    rows = [f'{{"q": "{text[:8]}", "a": ["{i}", "x"], "of": "{i // 2}"}}' for i, text in enumerate(texts(4))]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    return tmp_path


def test_a_task_of_samples(questions, monkeypatch):
    """Metrics are of all samples; pass@k and votes see those of an item together."""
    task = Generation(
        "g",
        Records("rows.jsonl"),
        prompt="{q}",
        answer="{a}",
        draw=Options(tokens=4, temperature=1.0, samples=4),
        pattern=r"(\w)",
        passes=(1, 2, 4),
        vote=True,
        cluster="{of}",
        metrics=("exact_match", "f1"),
    )
    drawn = [["0", "x", "1", "1"], ["0", "0", "..", "1"], ["2", "2", "2", "2"], ["..", "..", "..", ".."]]

    def given(subject, prompts, options, stop):
        return [[Drawn(text, cut=False) for text in each] for each in drawn]

    monkeypatch.setattr("jaxlm.evaluate.generation.draw", given)
    found = {one.name: one for one in ask(task, questions).run(tiny()).metrics}
    assert found["exact_match"].value == pytest.approx((0.5 + 0.25 + 1 + 0) / 4)
    assert found["f1"].value == found["exact_match"].value
    assert found["pass@1"].value == pytest.approx(found["exact_match"].value)
    assert found["pass@2"].value == pytest.approx((5 / 6 + 1 / 2 + 1 + 0) / 4)
    assert found["pass@4"].value == pytest.approx(3 / 4)
    # The commonest of 0, x, 1, 1 is 1, which is wrong; of 0, 0, 1 it is 0; where none is found it is wrong.
    assert found["exact_match_vote"].value == pytest.approx(1 / 4)
    assert found["answered"].value == pytest.approx((1 + 3 / 4 + 1 + 0) / 4)
    assert all(one.low <= one.value <= one.high and one.n == 4 for one in found.values())


@pytest.mark.parametrize(("metric", "voted"), [("number", 1.0), ("exact_match", 0.0)])
def test_votes_of_numbers(questions, monkeypatch, metric, voted):
    """0, -0 and 0.0 are one number and three texts; one that no decimal could be rounded to is one too."""
    options = Options(tokens=4, temperature=1.0, samples=6)
    records = Records("rows.jsonl", limit=1)
    task = Generation("g", records, prompt="{q}", answer="0", draw=options, vote=True, metrics=(metric,))
    drawn = [Drawn(text, cut=False) for text in ("1e9999999", "1e9999999", "-0", "0", "0.0", "two")]
    monkeypatch.setattr("jaxlm.evaluate.generation.draw", lambda *_: [drawn])
    found = {one.name: one.value for one in ask(task, questions).run(tiny()).metrics}
    assert found[f"{metric}_vote"] == voted


def test_letters_and_words_are_asked_differently(questions):
    """The prompts of both forms, from what is scored."""
    task = Choices("c", Records("rows.jsonl"), "Q: {q}\n", choices=("yes", "no"), answer="0")
    asked = {form: ask(dataclasses.replace(task, form=form), questions) for form in ("cloze", "letters")}
    assert asked["cloze"].hash != asked["letters"].hash
    letters = dataclasses.replace(task, form="letters")
    question = _question(letters, {"q": "why?"})
    assert question.prompt == "Q: why?\n A. yes\n B. no\nAnswer:"
    assert question.choices == ("A", "B")
    assert _worked(letters, {"q": "why?"}).endswith("Answer: A")
    assert _worked(task, {"q": "why?"}) == "Q: why?\nAnswer: yes"


def test_normalizations_of_one_item():
    nats, tokens, bare = np.array([-6.0, -7.0, -8.0]), np.array([2, 7, 3]), np.array([-1.0, -9.0, -2.0])
    choices = ["ab", "日本語です", "abcdefghi"]
    kinds = ("none", "token", "character", "byte", "pmi")
    found = {one: normalized(one, nats, tokens, choices, bare) for one in kinds}
    np.testing.assert_allclose(found["none"], nats)
    np.testing.assert_allclose(found["token"], [-3, -1, -8 / 3])
    np.testing.assert_allclose(found["character"], [-3, -7 / 5, -8 / 9])
    np.testing.assert_allclose(found["byte"], [-3, -7 / 15, -8 / 9])
    np.testing.assert_allclose(found["pmi"], [-5, 2, -6])
