"""Texts that a model writes itself: what they begin with, the same however they are cut up, nothing lost."""

import json

import numpy as np
import pytest

from jaxlm.cli import main
from jaxlm.config.errors import UsageError
from jaxlm.config.sampling import Options
from jaxlm.distill.own import Writing, Written, own_texts
from jaxlm.sampling.several import Drawn, asked, several
from jaxlm.serve.own import write
from jaxlm.train.load import load_run
from tests.serve.loopback import run_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def loaded(run):
    return load_run(run)


def texts(loaded, first=0, **fields):
    model, tokenizer, call = loaded
    writing = Writing(**({"texts": 5, "tokens": 12, "likeliest": 3, "batch": 4} | fields))
    return [text for batch in own_texts(model, tokenizer, writing, call, first) for text in batch]


def test_a_text_follows_from_the_seed_and_its_number_alone(loaded):
    whole = texts(loaded)
    assert len(whole) == 5
    assert texts(loaded, first=4) == whole[4:]
    assert texts(loaded, texts=8)[:5] == whole
    assert len(set(whole)) == 5
    assert texts(loaded, seed=1) != whole


def test_the_first_token_is_random_and_the_next_are_the_likeliest(loaded):
    model, tokenizer, call = loaded
    found = texts(loaded, texts=4, tokens=10, likeliest=8)
    starts = [token for token in range(tokenizer.vocab) if tokenizer.bytes_of([token])]
    options = Options(8, temperature=0.0)
    for number, text in enumerate(found):
        first = int(np.random.default_rng((0, number)).choice(starts))
        greedy = several(
            model, tokenizer, asked(model, tokenizer, [(tokenizer.bos, first)], options, call), options, call,
            stop=tokenizer.eos,
        )[0].ids  # fmt: skip
        assert text.startswith(tokenizer.decode([first, *greedy][:-1]))


def test_nothing_follows_the_end_of_a_text():
    ended = Written((1, 2)).continued(Drawn([5], "", 2, True))
    assert ended == Written((1, 2, 5), True)
    assert ended.continued(Drawn([6], "", 1, False)) == ended


def test_a_stopped_command_goes_on(run, tmp_path, capsys):
    out = tmp_path / "own.jsonl"
    words = ["distill", "own", run, "--out", str(out), "--texts", "6", "--tokens", "10", "--batch", "4"]
    assert main(words) == 0
    whole = out.read_text()
    lines = [json.loads(line) for line in whole.splitlines()]
    assert [one["origin"]["tokens"] for one in lines] == [10] * 6
    out.write_text(whole[: len(whole) - 7])  # torn within the last line, in the second batch
    assert main(words) == 0
    assert out.read_text() == whole
    assert main(words) == 0
    assert out.read_text() == whole
    assert main([*words, "--seed", "1"]) == 2
    assert out.read_text() == whole
    assert "choose another file" in capsys.readouterr().err


def test_what_other_programs_take_for_ends_of_lines(loaded, tmp_path, monkeypatch):
    texts = ["a\u2028b", "c\x85d\x0c", "e\r\nf", "g\u00e9"]

    def own(model, tokenizer, writing, call, first):
        yield from (texts[place : place + 2] for place in range(first, 4, 2))

    monkeypatch.setattr("jaxlm.serve.own.own_texts", own)
    out, writing = tmp_path / "own.jsonl", Writing(texts=4, batch=2)
    assert list(write(out, *loaded[:2], writing, loaded[2], {"seed": 0})) == [2, 4]
    whole = out.read_bytes()
    out.write_bytes(whole[:-3])
    assert list(write(out, *loaded[:2], writing, loaded[2], {"seed": 0})) == [4]
    assert out.read_bytes() == whole
    assert [json.loads(line)["text"] for line in whole.split(b"\n")[:-1]] == texts


def test_numbers_out_of_range(loaded):
    for fields in ({"texts": 0}, {"tokens": 4}, {"likeliest": -1}, {"batch": 0}, {"seed": -1}):
        with pytest.raises(UsageError, match=f"{next(iter(fields))} is "):
            texts(loaded, **fields)
