import math
import random
import re
import zlib

import numpy as np
import pytest

from jaxlm.config.errors import Failure
from jaxlm.corpus import Document, baselines, decontaminate, deduplicate, hold_out


def prose(seed, count=200):
    source = random.Random(seed)
    return " ".join(source.choices([f"w{i}" for i in range(2000)], k=count))


def corpus(count=60):
    return [Document(f"doc{i}", prose(i)) for i in range(count)]


def test_exact_duplicates_up_to_case_and_space():
    a, b = Document("a", "One  two\nthree"), Document("b", prose(1))
    copies = [Document("c", "one two three"), Document("d", a.text), Document("e", " ONE two three\n")]
    near = Document("f", "One two three four")
    assert deduplicate([a, b, *copies, near]) == ([a, b, near], 3)
    assert deduplicate([Document("x", "caf\u00e9"), Document("y", "cafe\u0301")])[1] == 1


def test_whole_documents_are_held_out_until_the_size_is_reached():
    docs = corpus()
    train, held = hold_out(docs, 5000)
    assert sorted([*train, *held], key=docs.index) == docs
    sizes = [len(document.text) for document in held]
    assert 5000 <= sum(sizes) < 5000 + max(sizes)
    assert train == [document for document in docs if document in train]  # order kept


def test_the_choice_depends_on_names_alone():
    docs = corpus()
    held = {document.name for document in hold_out(docs, 9000)[1]}
    assert held == {document.name for document in hold_out(docs[::-1], 9000)[1]}
    assert held != {document.name for document in hold_out([Document(d.name + "x", d.text) for d in docs], 9000)[1]}
    # A document more or less moves few others.
    fewer = {document.name for document in hold_out(docs[1:], 9000)[1]}
    assert len(held & fewer) >= len(held) - 2


def test_long_documents_wait():
    docs = [*corpus(), *(Document(f"long{i}", prose(i, 4000)) for i in range(20))]
    held = hold_out(docs, 16_000)[1]
    assert not any(document.name.startswith("long") for document in held)
    assert hold_out(docs[60:], 16_000)[1]


@pytest.mark.parametrize(("docs", "size"), [([], 1), (corpus(1), 10), (corpus(4), 10**6), (corpus(3), 2000)])
def test_too_little_text_is_a_failure(docs, size):
    with pytest.raises(Failure, match="held_out"):
        hold_out(docs, size)


def grams(text, n=13):
    found = re.findall(r"\w+", text.casefold())
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}


def test_planted_copies_are_removed_and_nothing_else():
    train, held = corpus(40), [Document("held", prose(999))]
    middle = " ".join(held[0].text.split()[50:63])
    planted = [
        Document("verbatim", held[0].text),
        Document("quoted", prose(7) + "\n" + middle.upper().replace(" ", ", ") + "\n" + prose(8)),
    ]
    short = Document("short", prose(9) + " " + " ".join(held[0].text.split()[50:62]))  # twelve words
    kept, dropped = decontaminate([*train[:20], *planted, short, *train[20:]], held)
    assert (kept, dropped) == ([*train[:20], short, *train[20:]], 2)


def test_decontamination_against_sets_of_tuples():
    source = random.Random(3)
    docs = [Document(str(i), " ".join(source.choices("abc", k=source.randrange(5, 400)))) for i in range(60)]
    train, held = docs[:55], docs[55:]
    known = set().union(*(grams(document.text) for document in held))
    expected = [document for document in train if not grams(document.text) & known]
    assert 0 < len(expected) < len(train)
    assert decontaminate(train, held) == (expected, len(train) - len(expected))
    assert decontaminate(train, []) == (train, 0)


def test_baselines_of_texts_with_known_entropy():
    uniform = "".join(map(chr, range(128))) * 100
    assert math.isclose(baselines([uniform])["unigram"], 7.0)
    assert baselines(["a" * 1000, "a" * 1000])["unigram"] == 0
    assert math.isclose(baselines(["ab" * 50, "cd" * 50])["unigram"], 2.0)
    noise = "".join(map(chr, np.random.default_rng(0).integers(0, 128, 20_000)))
    bits = baselines([noise])
    assert 7 <= bits["gzip"] < 7.3
    assert 7 <= bits["xz"] < 7.6
    with pytest.raises(ValueError, match="empty"):
        baselines([])


def test_gzip_is_deflate_with_its_header():
    text = prose(5, 3000)
    size = len(zlib.compress(text.encode(), 9)) - 6 + 18
    assert baselines([text[:100], text[100:]])["gzip"] == 8 * size / len(text)
