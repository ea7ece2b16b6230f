"""What rows tell beyond their tokens: words, ends of sentences, and documents that are the same again."""

import numpy as np
import pytest

from jaxlm.config import Bytes, SentencePiece, Stream, Whitespace, WordPiece
from jaxlm.config.errors import UsageError
from jaxlm.data import rows
from jaxlm.data.dataset import in_memory
from jaxlm.tokenizers import given
from jaxlm.tokenizers.build import learned
from jaxlm.tokenizers.words import begins_word, ends_sentence

TEXTS = [f"The cat, number {n}, sat unhappily on another mat." for n in range(40)]


def documents(tokenizer):
    arrays = [np.array([tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]) for text in TEXTS[:6]]
    return in_memory(arrays, bytes=1, vocab=tokenizer.vocab, pad=tokenizer.pad)


def words_of(config) -> list[str]:
    """The text of each word of the first document."""
    tokenizer = given(config) or learned(config, TEXTS)
    found = rows.held_out(documents(tokenizer), Stream(), batch=1, length=64, begins=begins_word(tokenizer))
    batch = found.batch(0)
    first = batch["segments"][0] == 1
    ids, words = batch["ids"][0][first], batch["words"][0][first]
    assert (words <= batch["positions"][0][first]).all()
    texts = [tokenizer.decode(ids[words == word]).strip() for word in sorted(set(words.tolist()))]
    return [text for text in texts if text]


def test_words_are_cut_at_white_space():
    wanted = ["The", "cat,", "number", "0,", "sat", "unhappily", "on", "another", "mat."]
    assert words_of(SentencePiece("bpe", 300)) == wanted
    assert words_of(Bytes()) == wanted
    assert words_of(Whitespace(90)) == wanted


def test_punctuation_of_word_piece_stands_alone():
    wanted = ["the", "cat", ",", "number", "0", ",", "sat", "unhappily", "on", "another", "mat", "."]
    assert words_of(WordPiece(120)) == wanted


def test_a_word_that_a_row_cuts_begins_with_the_row():
    tokenizer = given(Bytes())
    data = documents(tokenizer)
    batch = rows.held_out(data, Stream(), batch=2, length=7, begins=begins_word(tokenizer)).batch(0)
    assert batch["words"][1].tolist() == [7, 7, 9, 9, 9, 9, 9], 't, " number"'


@pytest.mark.parametrize("config", [SentencePiece("bpe", 300), Bytes(), Whitespace(90), WordPiece(120)])
def test_sentences_end_at_points(config):
    texts = ["It is 3 o'clock. Is it? It is!"] * 20 + TEXTS
    tokenizer = given(config) or learned(config, texts)
    ends = ends_sentence(tokenizer)
    data = in_memory(
        [np.array([tokenizer.bos, *tokenizer.encode(texts[0]), tokenizer.eos])],
        bytes=1,
        vocab=tokenizer.vocab,
        pad=tokenizer.pad,
    )
    batch = rows.held_out(data, Stream(), batch=1, length=64, ends=ends).batch(0)
    ids, found = batch["ids"][0], batch["ends"][0]
    marked = [tokenizer.decode([token]).strip()[-1] for token in ids[found > 0]]
    assert marked == [".", "?", "!"]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(ends[ids], found > 0)


def test_white_space_behind_a_point_hides_no_end(monkeypatch):
    tokenizer = given(Bytes())
    monkeypatch.setattr(type(tokenizer), "bytes_of", lambda self, ids: {5: b".\n", 6: b". a"}.get(ids[0], b"x"))
    assert np.flatnonzero(ends_sentence(tokenizer)).tolist() == [5]


def test_a_vocabulary_without_ends_is_refused():
    tokenizer = learned(Whitespace(20), ["no end is here at all"])
    with pytest.raises(UsageError, match=r"objective.permuted: no token of the tokenizer ends in"):
        ends_sentence(tokenizer)


def test_documents_are_the_same_again():
    data = documents(given(Bytes()))
    size = {"batch": 4, "length": 32, "seed": 0}
    plain, twice = (rows.training(data, Stream(), **size, copies=copies) for copies in (0, 2))
    assert plain.fingerprint != twice.fingerprint
    assert rows.training(data, Stream(), **size).fingerprint == plain.fingerprint
    steps = 4 * plain.steps
    for step in range(steps):
        one, two = plain.batch(step), twice.batch(step)
        np.testing.assert_array_equal(two["documents"], one["documents"] % 12)
        np.testing.assert_array_equal(two["ids"], one["ids"])
    assert max(plain.batch(step)["documents"].max() for step in range(steps)) >= 18
