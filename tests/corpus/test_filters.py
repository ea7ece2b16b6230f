import json
import os
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jaxlm.config import Filters, PythonText
from jaxlm.corpus import Raw, clean, documents, verdict
from jaxlm.corpus.ngrams import hashes, occurrence, words

ENGLISH = (
    "It was a bright cold day in April, and the clocks were striking when the old man came to the shore. "
    "He had walked all night through the hills, and nobody in the village knew his name or what he wanted. "
    "The children followed him at a distance, whispering, until he sat upon an upturned boat. "
)
GERMAN = (
    "Als der alte Mann am Morgen an das Ufer kam, war der Himmel klar und das Wasser lag ganz still vor ihm. "
    "Niemand im Dorf kannte seinen Namen, und keiner wusste, woher er gekommen war oder was er dort wollte. "
    "Die Kinder folgten ihm mit einigem Abstand und sprachen leise miteinander, bis er sich endlich setzte. "
)
JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で泣いていた。"
    "朝の海はとても静かで、老人は一人で浜辺に座っていた。村の子供たちは少し離れて、旅人を黙って見つめていた。"
    "夕方になると山から冷たい風が吹き、家々の窓には明かりがともった。老人は立ち上がり、船までゆっくり歩いた。"
    "翌日、彼の姿はもうどこにもなかった。ただ砂の上に小さな足跡が残っていて、昼過ぎには波に消されてしまった。"
)
LOREM = " ".join(random.Random(0).choices([f"word{i}" for i in range(500)], k=200))
CODE = '''
def area(width, height):
    """Return the area of a rectangle of the given width and height, in the same unit squared."""
    if width < 0 or height < 0:
        raise ValueError(f"negative side: {width!r} x {height!r}")
    return width * height
'''

PLANTED = [
    ("empty", b""),
    ("empty", b" \n\t\n "),
    ("too long", b"x" * 50_000_000),
    ("too long", (LOREM + "\n").encode() * 1000),
    ("not utf-8", ENGLISH.encode().replace(b"old", b"\xff\xfe")),
    ("not utf-8", "Café ".encode("latin-1") * 100),
    ("too short", b"Hello, world."),
    ("binary", ENGLISH.encode().replace(b"old", b"o\0d")),
    ("binary", bytes(random.Random(1).choices(range(128), k=2000))),
    ("binary", ENGLISH.replace("cold", "c\ufffdld").encode()),
    ("symbols", b"<<|>>-=-+{}[]();;;!!@#$%^&*a b c d" * 20),
    ("repetition", b"Click here to win a big prize today!\n" * 50 + ENGLISH.encode()),
    ("repetition", b"click here " * 100),
    ("repetition", (LOREM[:150] + " ").encode() * 12),
    ("language", GERMAN.encode()),
    ("language", JAPANESE.encode()),
]


@pytest.mark.parametrize(("reason", "raw"), PLANTED, ids=[f"{r}-{i}" for i, (r, _) in enumerate(PLANTED)])
def test_planted_documents_are_dropped_for_their_reason(reason, raw):
    assert verdict(Raw("planted", raw), Filters()) == reason


@pytest.mark.parametrize("text", [ENGLISH, CODE, LOREM, ENGLISH + "\n\f\r\n\ttail", "# naïve café\n" + ENGLISH])
def test_clean_documents_are_kept(text):
    assert verdict(Raw("clean", text.encode()), Filters()) is None


def test_thresholds_come_from_the_config():
    assert verdict(Raw("", GERMAN.encode()), Filters(languages=("en", "de"))) is None
    assert verdict(Raw("", JAPANESE.encode()), Filters(languages=(), max_repetition=1.0, min_chars=10)) is None
    assert verdict(Raw("", ENGLISH.encode()), Filters(languages=("ja",))) == "language"
    assert verdict(Raw("", ENGLISH.encode()), Filters(min_chars=10_000)) == "too short"
    assert verdict(Raw("", ENGLISH.encode()), Filters(max_chars=200)) == "too long"
    assert verdict(Raw("", ENGLISH.encode()), Filters(max_symbols=0.001)) == "symbols"
    assert verdict(Raw("", (ENGLISH * 4).encode()), Filters(max_repetition=0.9)) is None


def test_clean_keeps_order_and_counts_every_document():
    raw = [Raw(f"bad{i}", data) for i, (_, data) in enumerate(PLANTED)]
    kept, reasons = clean([Raw("a", ENGLISH.encode()), *raw, Raw("b", CODE.encode())], Filters())
    assert [(document.name, document.text) for document in kept] == [("a", ENGLISH), ("b", CODE)]
    assert reasons == Counter(reason for reason, _ in PLANTED)


def test_a_line_of_fifty_megabytes_costs_nothing():
    document = Raw("long", b"a" * 50_000_000)
    start = time.perf_counter()
    assert verdict(document, Filters()) == "too long"
    assert time.perf_counter() - start < 0.5


def test_no_source_of_the_standard_library_is_dropped():
    sample = [d for d in documents(PythonText()) if len(d.raw) >= 400][::5]
    assert len(sample) > 50
    _, reasons = clean(sample, Filters())
    assert not reasons


@pytest.mark.skipif("JAXLM_DATA" not in os.environ, reason="JAXLM_DATA names no folder of real texts")
def test_no_real_english_text_is_dropped_and_japanese_is():
    folder = Path(os.environ["JAXLM_DATA"], "text")
    parts = [
        Raw(f"{name}:{start}", text[start : start + 100_000].encode())
        for name in ("tinyshakespeare.txt", "wikitext2_valid.txt", "botchan_en.txt")
        for text in [(folder / name).read_text(encoding="utf-8")]
        for start in range(0, len(text) - 1000, 100_000)
    ]
    assert len(parts) > 20
    assert not clean(parts, Filters())[1]
    japanese = (folder / "wagahai_neko_ja.txt").read_text(encoding="utf-8")[:100_000]
    assert verdict(Raw("neko", japanese.encode()), Filters()) == "language"
    assert verdict(Raw("neko", japanese.encode()), Filters(languages=("ja",))) is None
    pages = [json.loads(line)["text"] for line in (folder / "llamafactory_c4_demo.jsonl").open(encoding="utf-8")]
    raw = [Raw(str(i), page.encode()) for i, page in enumerate(pages)]
    kept, reasons = clean(raw, Filters())
    assert len(kept) + reasons["too short"] >= 0.98 * len(raw), reasons


def test_ngrams_against_tuples():
    random_ids = np.random.default_rng(0).integers(0, 3, 300)
    for n in (1, 4, 10):
        grams = [tuple(random_ids[i : i + n]) for i in range(len(random_ids) - n + 1)]
        seen: Counter = Counter()
        expected = []
        for gram in grams:
            expected.append(seen[gram])
            seen[gram] += 1
        assert occurrence(hashes(random_ids, n)).tolist() == expected
    assert len(hashes(random_ids[:3], 4)) == 0
    assert len(occurrence(np.empty(0, np.uint64))) == 0


def test_words_share_numbers_between_texts():
    first, second = words(["The cat, the dog", "dog THE"])
    assert first.tolist() == [0, 1, 0, 2]
    assert second.tolist() == [2, 0]
