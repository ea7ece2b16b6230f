"""A teacher of a language in which a context goes on in several quite different ways; and its text.

    python experiments/teachers/phrases.py                                       # writes runs/phrases.jsonl
    jaxlm run experiments/teachers/phrases.py --run-dir runs/phrases

The language: a capital letter, then one of its eight phrases of eight small letters, then another capital letter.
The first phrase of a capital letter is the likeliest, the k-th has 1/k of its share. All are of random letters, no
two of a capital letter begin alike, and nothing tells which one follows. There are no spaces: a language of so few
words repeats 13 of them in a row, and training documents that do so with held-out ones would be dropped.

2 million bytes, 0.880 held-out bits a byte (0.813 for who knows the language, and the beginning of each row). The
students are those of experiments/ablations/divergences.py.
"""

import json
import math
import random
import string
from pathlib import Path

from jaxlm.config import (
    Attention,
    Block,
    Bytes,
    Corpus,
    Decoder,
    Every,
    Experiment,
    Filters,
    Gated,
    Linear,
    Muon,
    TextFiles,
    Train,
    Where,
)

TEXT = "runs/phrases.jsonl"
COUNT, LETTERS = 8, 8
"""Phrases of a capital letter, and letters of a phrase."""
SHARES = tuple(1 / (k * sum(1 / j for j in range(1, COUNT + 1))) for k in range(1, COUNT + 1))
"""Of each phrase of a capital letter."""


def phrases() -> dict[str, tuple[str, ...]]:
    """Each capital letter's, from the likeliest on; no two begin alike."""
    draw = random.Random(0)
    found = {}
    for capital in string.ascii_uppercase:
        firsts = draw.sample(string.ascii_lowercase, COUNT)
        found[capital] = tuple(
            first + "".join(draw.choices(string.ascii_lowercase, k=LETTERS - 1)) for first in firsts
        )
    return found


def entropy() -> float:
    """Bits of a byte of the language, beside which a model that knows all of it has nothing left to learn."""
    chosen = -sum(share * math.log2(share) for share in SHARES)
    return (math.log2(len(string.ascii_uppercase)) + chosen) / (1 + LETTERS)


def document(draw: random.Random, count: int) -> str:
    """So many capital letters with a phrase each."""
    known = phrases()
    capitals = draw.choices(string.ascii_uppercase, k=count)
    return "".join(capital + draw.choices(known[capital], SHARES)[0] for capital in capitals)


def main() -> None:
    """Writes the text: 2 MB in documents of 1,800 bytes."""
    path, draw = Path(TEXT), random.Random(1)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": document(draw, 200)}) + "\n" for _ in range(1200)))
    print(f"{path}: {entropy():.4f} bits a byte")


def experiment() -> Experiment:
    return Experiment(
        name="phrases",
        model=Decoder(
            vocab=260,
            embed=64,
            layers=2,
            block=Block(attention=Attention(heads=2, kv_heads=2, head=32), mlp=Gated(width=176)),
        ),
        tokenizer=Bytes(),
        data=Corpus(
            TextFiles((TEXT,)),
            Filters(min_chars=1, max_repetition=1.0, max_symbols=1.0, languages=()),
            held_out=36_000,
        ),
        optimizer=Muon(schedule=Linear(peak=2e-2, warmup=20)),
        train=Train(steps=1000, batch=16, length=128),
        where=Where(layers="unroll", every=Every(log=100, evaluate=100, checkpoint=0)),
    )


if __name__ == "__main__":
    main()
