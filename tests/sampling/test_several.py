"""Several answers at once against one at a time, what ends them, and how likely their tokens were."""

import dataclasses

import numpy as np
import pytest

from jaxlm.config.errors import UsageError
from jaxlm.config.sampling import Options
from jaxlm.sampling.several import asked, several
from jaxlm.sampling.text import sample_with_log_probabilities
from tests.sampling.test_text import ASCII, CALL, model_of

OPTIONS = Options(tokens=11, samples=2, seed=3, reading="causal")
PROMPTS = ["some prompt", "another one"]


def drawn(model, options=OPTIONS, prompts=PROMPTS, **more):
    read = asked(model, ASCII, prompts, options, CALL)
    return read, several(model, ASCII, read, options, CALL, stop=ASCII.eos, **more)


@pytest.mark.parametrize(
    ("kind", "reading"),
    [
        ("decoder", "causal"),
        pytest.param("decoder", "prefix", marks=pytest.mark.nightly),
        pytest.param("encoder_decoder", "causal", marks=pytest.mark.nightly),
    ],
)
def test_texts_and_log_probabilities_are_those_of_one_at_a_time(kind, reading):
    model, options = model_of(ASCII.vocab, kind), dataclasses.replace(OPTIONS, reading=reading)
    wanted = sample_with_log_probabilities(model, ASCII, PROMPTS, options, CALL)
    read, found = drawn(model, options, best=3)
    assert [one.text for one in found] == [one.text for one in wanted]
    assert read.lengths == [len(text) + 1 for text in PROMPTS]
    for one, other in zip(found, wanted):
        nats = [each.nats for each in one.likely]
        assert len(nats) == len(one.ids) > 3
        assert np.abs(np.array(nats) - other.log_probabilities[: len(nats)]).max() < 2e-5 * 3
        for token, likely in zip(one.ids, one.likely):
            best = [p for _, p in likely.best]
            assert best == sorted(best, reverse=True)
            assert best[0] >= likely.nats
            assert dict(likely.best).get(token, likely.nats) == likely.nats


def test_a_text_ends_each_row_by_itself():
    model = model_of(ASCII.vocab)
    _, whole = drawn(model)
    stop = whole[1].text[4:6]
    _, cut = drawn(model, texts=("\0never", stop))
    assert [one.text for one in cut] == [one.text.split(stop)[0] for one in whole]
    assert (cut[1].stopped, cut[1].tokens, cut[1].ids) == (True, 6, whole[1].ids[:6])
    _, both = drawn(model, texts=(whole[1].text[4:6], whole[1].text[3:6]))
    assert both[1].text == whole[1].text[:3], "the one that begins first"
    assert sum(one.stopped for one in cut) < 4, "otherwise all ended alike"


def test_the_token_that_ends_an_answer_is_no_part_of_it():
    model = model_of(ASCII.vocab)
    for seed in range(60):
        _, found = drawn(model, dataclasses.replace(OPTIONS, seed=seed, temperature=3.0))
        if ended := [one for one in found if one.stopped]:
            break
    assert ended[0].tokens == len(ended[0].ids) + 1 <= 11
    assert ASCII.eos not in ended[0].ids
    going = next(one for one in found if not one.stopped)
    assert going.tokens == len(going.ids) == 11


def test_tokens_that_are_no_prompt():
    for wrong in ((), (ASCII.vocab,), (-1,)):
        with pytest.raises(UsageError, match="each at least 0 and below 132"):
            asked(model_of(ASCII.vocab), ASCII, [wrong], OPTIONS, CALL)
