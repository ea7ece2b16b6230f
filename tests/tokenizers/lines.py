"""A thousand lines each of English, Japanese, code and emoji: real ones where JAXLM_DATA has them."""

from __future__ import annotations

import inspect
import json
import os
import random
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

COUNT = 1000
SENTENCES = (
    "吾輩は猫である。",
    "名前はまだ無い。",
    "国境の長いトンネルを抜けると雪国であった。",
    "親譲りの無鉄砲で小供の時から損ばかりしている。",
    "東京都千代田区１－２－３へ行きますか？",
    "「はい、そうです」と彼は言った。",
    "データを１００個、コピーしてください！",
    "ｶﾀｶﾅと全角ＡＢＣ。",
)
"""Japanese as it is written: opening sentences of novels, and what forms and screens hold."""
RANGES = [(0x3041, 0x3096, 6), (0x30A1, 0x30FC, 4), (0x4E00, 0x9FA5, 6), (0xFF10, 0xFF5A, 1), (0x3001, 0x3011, 1)]
"""First and last code point and weight: hiragana, katakana, kanji, full width, punctuation."""
FACES = ["😀", "😂", "🥺", "❤️", "☕", "1️⃣", "🐱", "🫠", "©", "✈️", "♀", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]
PEOPLE, TONES = ["👍", "👋", "🧑", "👩", "🙏", "🏃"], ["", "🏻", "🏼", "🏽", "🏾", "🏿"]
JOINED = ["👩‍👩‍👧‍👦", "🧑‍💻", "🏳️‍🌈", "👨🏽‍🚀", "🐻‍❄️", "❤️‍🔥", "🏃🏿‍♀️"]


def folder() -> Path:
    """The real texts. Skips without them."""
    if "JAXLM_DATA" not in os.environ:
        pytest.skip("JAXLM_DATA names no folder of real texts")
    return Path(os.environ["JAXLM_DATA"])


def english() -> list[str]:
    lines = (folder() / "text/wikitext2_valid.txt").read_text().split("\n")
    # The text holds "<unk>", which transformers takes for the special token unless it is asked not to.
    return [line.replace("<unk>", "unknown") for line in lines if line.strip()][:COUNT]


def japanese() -> list[str]:
    """Made from a fixed seed, and real ones between them."""
    draw = random.Random(0)
    weights = [weight for _, _, weight in RANGES]

    def letter() -> str:
        first, last, _ = draw.choices(RANGES, weights)[0]
        return chr(draw.randint(first, last))

    made = ["".join(letter() for _ in range(draw.randint(1, 60))) for _ in range(COUNT // 2)]
    return made + ["".join(draw.choices(SENTENCES, k=draw.randint(1, 4))) for _ in range(COUNT // 2)]


def real_japanese() -> list[str]:
    lines = (folder() / "text/wagahai_neko_ja.txt").read_text().split("\n")
    first = [line for line in lines if line.strip()][: COUNT // 2]
    asked = [json.loads(line)["question"] for line in (folder() / "ja/jcommonsenseqa_train.json").open()]
    return first + asked[: COUNT // 2]


def code() -> list[str]:
    """Lines, and a few blocks of several."""
    sources = [inspect.getsource(module) for module in (inspect, textwrap, json, random, json.decoder)]
    lines = [line for source in sources for line in source.split("\n") if line.strip()]
    blocks = ["\n".join(lines[at : at + 7]) + "\n\n" for at in range(0, 700, 7)]
    return (blocks + lines)[:COUNT]


def emoji() -> list[str]:
    """Skin tones, flags, keycaps and joined sequences among words, from a fixed seed."""
    draw = random.Random(1)

    def flag() -> str:
        return "".join(chr(0x1F1E6 + draw.randrange(26)) for _ in range(2))

    def one() -> str:
        kinds: list[Callable[[], str]] = [
            lambda: draw.choice(FACES),
            lambda: draw.choice(PEOPLE) + draw.choice(TONES),
            flag,
            lambda: draw.choice(JOINED),
            lambda: draw.choice(["ok ", " so", " ", "  ", "\t", "!", "yes, ", "cafe\u0301", "ﬁ"]),
            lambda: chr(draw.randint(0x1F300, 0x1FAFF)),
        ]
        return draw.choice(kinds)()

    return ["".join(one() for _ in range(draw.randint(1, 20))) for _ in range(COUNT)]


TEXTS = {"english": english, "japanese": japanese, "real japanese": real_japanese, "code": code, "emoji": emoji}
"""Name -> a function that gives `COUNT` lines."""

HARD = [
    "",
    " ",
    "\n",
    "   leading and trailing   ",
    "tabs\t\tand\r\nreturns\n\n\n",
    "def f():\n        return {}\n",
    "emoji 👩‍👩‍👧 flags 🇯🇵 and 日本語, naïve café",
    "cafe\u0301 is not caf\u00e9; ﬁ is not fi; Ａ is not A",
    "controls ␀ \x00 \x01 \x7f \x85 \u2028 \u200b \ufeff",
]
"""Texts that a lossless tokenizer gives back."""
