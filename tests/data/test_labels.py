"""Labeled texts and pairs as documents: what is in them, what they are cut to, and where rows tell their labels."""

import itertools
import json
import re

import numpy as np
import pytest
from scipy import stats

from jaxlm.config import BestFit, Bytes, Corpus, Filters, Labeled, Pairs, TextFiles
from jaxlm.config.errors import Failure, UsageError
from jaxlm.data import dataset, held_out, prepare, training
from jaxlm.data.labels import cut
from jaxlm.data.pairs import Paired, sentences
from jaxlm.tokenizers import given

TOKENIZER = given(Bytes())
BOS, EOS = TOKENIZER.bos, TOKENIZER.eos
DOCUMENTS = [
    "\n".join(f"Text {number:02d} says {place:02d}{'.' * (number * place % 7)}" for place in range(number % 9 + 1))
    for number in range(60)
]


def silent(line):
    pass


def texts(ids):
    """The texts of a document, and its form checked."""
    assert (ids[0], ids[-1]) == (BOS, EOS)
    parts = "".join(chr(1) if one == EOS else TOKENIZER.decode([one]) for one in ids[1:-1]).split(chr(1))
    return tuple(parts)


def pairs(kind, length=80, documents=DOCUMENTS, report=silent):
    return list(Paired(kind, length).tokenized(documents, TOKENIZER, report))


# --- labeled texts -----------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "texts.jsonl"
    lines = [{"text": f"text number {i}" * (i % 5 + 1), "second": f"other {i}", "label": i % 3} for i in range(90)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Labeled((str(path),), held_out=600)


@pytest.mark.parametrize("second", ["", "second"])
def test_from_files_to_rows(source, tmp_path, second):
    lines = []
    data = Labeled(source.paths, second=second, held_out=600)
    found = prepare(data, Bytes(), tmp_path / "cache", lines.append, length=40)
    again = prepare(data, Bytes(), tmp_path / "cache", lines.append, length=40)
    assert found.train.fingerprint == again.train.fingerprint
    assert found.documents["train"] == found.train.documents
    assert found.train.documents + found.held_out.documents == 90
    assert any("and cut: " in line for line in lines)
    for part in (found.train, found.held_out):
        assert part.lengths.max() <= 40
        for number in range(part.documents):
            whole = part.tokens[part.offsets[number] : part.offsets[number + 1]]
            first, *rest = texts(whole)
            index = int(first.split(" ")[2].split("text")[0])
            assert part.labels[number] == index % 3
            assert [one[:5] for one in rest] == (["other"] if second else [])
            assert first.startswith(f"text number {index}"[: len(first)])
    assert found.train.classes == dict(zip(*np.unique(found.train.labels, return_counts=True)))


def test_texts_that_share_a_passage_are_not_on_both_sides(tmp_path):
    """Twenty questions on each of some passages: what is common is no phrase."""
    draw = np.random.default_rng(0)
    words = [f"word{i}" for i in range(500)]
    passages = [" ".join(draw.choice(words, 32)) for _ in range(20)]
    lines = [{"text": f"Question {i}?", "second": passages[i % 20], "label": i % 2} for i in range(400)]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = Labeled((str(path),), second="second", held_out=600)
    found = prepare(data, Bytes(), tmp_path / "cache", silent, length=400)

    def seen(part):
        return {texts(part.tokens[a:b])[1] for a, b in itertools.pairwise(part.offsets)}

    assert seen(found.train) & seen(found.held_out) == set()
    assert found.documents["contaminated"] > 0
    assert found.documents["train"] > 0


def test_rows_tell_each_label_once():
    arrays = [[BOS, *range(10, 10 + n), EOS] for n in (3, 9, 1, 4, 4, 7)]
    labels = [2, 0, 1, 1, 3, 0]
    data = dataset.in_memory(arrays, bytes=1, vocab=64, pad=0, labels=labels)
    plain = dataset.in_memory(arrays, bytes=1, vocab=64, pad=0)
    assert data.fingerprint != plain.fingerprint
    assert "labels" not in held_out(plain, BestFit(), batch=2, length=16).batch(0)
    for rows in (
        held_out(data, BestFit(), batch=4, length=16),
        training(data, BestFit("row"), batch=4, length=11, seed=3),
    ):
        found = [rows.batch(step) for step in range(rows.steps)]
        seen = {}
        for batch in found:
            there = batch["labels"] >= 0
            assert (batch["positions"][there] == 0).all()
            assert (batch["ids"][there] == BOS).all()
            seen |= dict(zip(batch["documents"][there] % 6, batch["labels"][there]))
        assert [seen[i] for i in range(6)] == labels
        total = sum((batch["labels"] >= 0).sum() for batch in found)
        assert total == 6 or rows.seed is not None


def test_labels_are_kept_on_disk(tmp_path):
    some = [dataset.Tokenized(np.array([BOS, 9, EOS], np.int32), None, 1, label) for label in (4, 0)]
    dataset.write(iter(some), TOKENIZER, tmp_path / "a")
    assert dataset.load(tmp_path / "a").labels.tolist() == [4, 0]
    (tmp_path / "a" / "labels.bin").write_bytes(b"\0" * 4)
    with pytest.raises(Failure, match=r"labels.bin has 4 bytes, not 8"):
        dataset.load(tmp_path / "a")
    with pytest.raises(ValueError, match="others have none"):
        dataset.write(iter([some[0], some[1]._replace(label=None)]), TOKENIZER, tmp_path / "b")


@pytest.mark.parametrize("most", range(13))
@pytest.mark.parametrize("lengths", [(4, 8), (8, 4), (5, 5), (12,), (0, 7)])
def test_the_longest_is_cut_token_by_token(lengths, most):
    wanted = list(lengths)
    while sum(wanted) > most:
        longest = max(range(len(wanted)), key=lambda i: (wanted[i], i))
        wanted[longest] -= 1
    assert [len(one) for one in cut([range(n) for n in lengths], most)] == wanted


# --- pairs -------------------------------------------------------------------------------------------------


def test_sentences():
    found = sentences("One here. Two?  Yes!\n\nA line 3.14 of it\nlast")
    assert found == ["One here.", "Two?", "Yes!", "A line 3.14 of it", "last"]


WHOLE = [sentences(text) for text in DOCUMENTS]


def joined(number, begin, end):
    return "".join(WHOLE[number][begin:end])


def runs(text):
    """Every (document, begin, end) whose sentences are this text."""
    number = int(text.split("Text ")[1][:2]) if text.startswith("Text ") else None
    assert number is not None
    count = len(WHOLE[number])
    places = ((i, j) for i in range(count) for j in range(i + 1, count + 1))
    return ((number, i, j) for i, j in places if joined(number, i, j) == text)


@pytest.mark.parametrize("wrong", ["other", "swapped"])
def test_pairs_are_what_their_labels_say(wrong):
    """Rows long enough for every text, so that none is cut; a control with the labels turned around fails."""
    turned = total = 0
    for one in pairs(Pairs(wrong=wrong, copies=3), 2000):
        first, second = (next(runs(text)) for text in texts(one.ids))
        follows = first[0] == second[0] and first[2] == second[1]
        before = first[0] == second[0] and second[2] == first[1]
        assert one.bytes > 0
        total += 1
        if one.label == 0:
            assert follows
        elif wrong == "other":
            assert first[0] != second[0]
        else:
            assert before
        turned += follows == (one.label == 1)
    assert total > 100
    assert turned == 0


@pytest.mark.parametrize("wrong", ["other", "swapped"])
def test_half_of_them_are_wrong(wrong):
    labels = [one.label for one in pairs(Pairs(wrong=wrong, copies=30), 90, DOCUMENTS[9:])]
    alone = 0.0
    if wrong == "other":  # a sentence that nothing follows has no other way
        lone = [one for one in pairs(Pairs(wrong="swapped", copies=30), 90, DOCUMENTS[9:])]
        alone = 1 - len(lone) / len(labels)
    share = sum(labels) / len(labels)
    assert 0.45 < share < 0.55 + alone


def test_all_places_are_cut_at_alike():
    """Where the first text ends: uniform over the ends of sentences, by chi-square."""
    text = "\n".join(f"Text 00 says {i:02d}" for i in range(8))
    found = pairs(Pairs(wrong="swapped", short=0.0, copies=2000), 2000, [text])
    cuts = [texts(one.ids)[one.label].count("Text") for one in found]
    counts = np.bincount(cuts, minlength=8)[1:]
    assert len(counts) == 7
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.binomtest(sum(one.label for one in found), len(found)).pvalue > 1e-3


@pytest.mark.parametrize("wrong", ["other", "swapped"])
@pytest.mark.parametrize("length", [5, 24, 61])
def test_none_is_longer_than_a_row(wrong, length):
    lengths = [len(one.ids) for one in pairs(Pairs(wrong=wrong), length)]
    assert max(lengths, default=0) <= length
    assert min(lengths, default=3) >= 3


def test_some_are_short():
    long, short = (np.mean([len(one.ids) for one in pairs(Pairs(short=share), 300)]) for share in (0.0, 1.0))
    assert short < 0.85 * long


def test_the_same_again_and_otherwise_in_copies():
    found = [one.ids.tolist() for one in pairs(Pairs(copies=2))]
    assert found == [one.ids.tolist() for one in pairs(Pairs(copies=2))]
    once = [one.ids.tolist() for one in pairs(Pairs())]
    assert found[: len(once)] == once
    assert found[len(once) :] != once


def test_every_sentence_is_used():
    """Where a wrong text took the place of the second, that begins another pair."""
    used = set()
    for one in pairs(Pairs(), 2000):
        first, second = (next(runs(text)) for text in texts(one.ids))
        for number, begin, end in [first] + [second] * (one.label == 0):
            used |= {(number, place) for place in range(begin, end)}
    assert used == {(number, place) for number, whole in enumerate(WHOLE) for place in range(len(whole))}


def test_the_longer_text_is_cut_at_either_end():
    found = [text for one in pairs(Pairs(short=0.0), 40, DOCUMENTS[9:]) for text in texts(one.ids)]
    begins = [text.startswith("Text ") for text in found]
    assert 0.1 < 1 - sum(begins) / len(begins) < 0.9
    ends = [re.search(r"says \d\d\.*$", text) is not None for text in found]
    assert 0.1 < 1 - sum(ends) / len(ends) < 0.9


def test_documents_of_different_shards_are_drawn_apart(monkeypatch):
    monkeypatch.setattr("jaxlm.data.pairs.SHARD", 60)
    found = [one.ids.tolist() for one in pairs(Pairs(wrong="swapped", short=0.0), documents=DOCUMENTS * 2)]
    once = [one.ids.tolist() for one in pairs(Pairs(wrong="swapped", short=0.0))]
    assert found[: len(once)] == once
    assert found[len(once) :] != once


def test_a_document_alone_has_no_other():
    assert {one.label for one in pairs(Pairs(copies=20), documents=DOCUMENTS[8:9])} == {0}
    assert pairs(Pairs(wrong="swapped"), documents=["One line"]) == []


def test_rows_too_short_for_a_pair():
    with pytest.raises(UsageError, match=r"train\.length=4: a pair has at least 5 tokens"):
        Paired(Pairs(), 4)


def test_pairs_of_prepared_text(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    corpus = Corpus(TextFiles((str(path),)), Filters(min_chars=1, max_repetition=1.0, languages=()), 300)
    lines = []
    found = prepare(Pairs(corpus), Bytes(), tmp_path / "cache", lines.append, length=64)
    assert set(found.train.classes) == {0, 1}
    assert found.train.lengths.max() <= 64
    assert any("of them wrong" in line for line in lines)
    other = prepare(Pairs(corpus, wrong="swapped"), Bytes(), tmp_path / "cache", lines.append, length=64)
    assert other.train.fingerprint != found.train.fingerprint
