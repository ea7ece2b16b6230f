"""RWKV-7 "Goose" on MiniPile: the losses that its authors publish with their training code.

    jaxlm show experiments/papers/rwkv7_minipile.py
    jaxlm run experiments/papers/rwkv7_minipile.py               # one chip; MiniPile prepared as tfds "minipile"

12 layers of 768 features, 191,034,624 parameters, rows of 512 tokens of RWKV's own tokenizer (65,536 tokens), 16 a
step; 1,498,226,207 tokens are one pass. Mean training loss in each mini-epoch of 40,320 rows, 2,520 steps
(github.com/BlinkDL/RWKV-LM, RWKV-v7/train_temp/README.md, which says "must be within +-0.01"):

    0        1        2        3        4        5        6        7        8        9        10       11
    4.8759   4.0286   3.8016   3.6631   3.5790   3.5109   3.4623   3.4122   3.3767   3.3369   3.3134   3.2959

Four things differ there: the tokenizer is greedy over a list of words, and needs a tokenizer.json here that cuts
alike; the vectors that decays start from learn at twice the rate; the loss draws the largest score of every token
towards zero (1e-4 of it); and rows are drawn from the joined text by a permutation of their own.
"""

from jaxlm.config import AdamW, Cosine, Every, Experiment, Tfds, TokenizerJson, Train, Where
from jaxlm.families.rwkv import rwkv7


def experiment() -> Experiment:
    return Experiment(
        name="rwkv7_minipile",
        model=rwkv7("0.1b"),
        tokenizer=TokenizerJson("rwkv_vocab_v20230424.json"),
        data=Tfds("minipile"),
        optimizer=AdamW(schedule=Cosine(peak=6e-4, warmup=10), b2=0.99, epsilon=1e-18, decay=0.001),
        train=Train(steps=182_888, batch=16, length=512),
        precision="bfloat16",
        where=Where(every=Every(log=2520, evaluate=2520, checkpoint=2520)),
    )
