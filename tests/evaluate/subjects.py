"""Tiny random models to be asked, and a brute force beside them."""

import functools

import jax
import numpy as np

from jaxlm import config
from jaxlm.evaluate.results import Subject
from jaxlm.sampling.loop import bucket
from jaxlm.tokenizers.bytes import ByteTokenizer
from tests.tiny import CALL, random_model, tokens

LENGTH = 64
BLOCK = config.Block(config.Attention(heads=2, kv_heads=1, head=8), config.Gated(24))
KINDS = {
    "decoder": config.Decoder(vocab=260, embed=16, layers=2, block=BLOCK),
    "rwkv7": config.Rwkv7(
        vocab=260, embed=16, layers=1, head_size=4, width=32, decay_rank=5, rate_rank=6, value_rank=3, gate_rank=7
    ),
}


@functools.cache
def tiny(kind: str = "decoder", *, prefixed: bool = False) -> Subject:
    return Subject(random_model(KINDS[kind]), ByteTokenizer(), CALL, LENGTH, prefixed)


@jax.jit
def _logits(model, inputs):
    return model.logits(model(inputs, CALL).hidden, CALL)


def log_probabilities(model, ids) -> np.ndarray:
    """[pos, vocab] of one row by itself, in float64 from the logits on: padded only to have few programs."""
    row = np.zeros((1, bucket(len(ids))), int)
    row[0, : len(ids)] = ids
    logits = np.asarray(_logits(model, tokens(row)), np.float64)[0, : len(ids)]
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def by_hand(subject, context, continuation) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of each token of a continuation, and whether it was the likeliest."""
    ids = np.concatenate([context, continuation])[-subject.length - 1 :]
    scores = log_probabilities(subject.model, ids[:-1])[-len(continuation) :]
    return scores[np.arange(len(continuation)), continuation], scores.argmax(axis=1) == continuation


def greedy(subject, prompt, count: int) -> list[int]:
    """Tokens drawn by computing everything anew for each, to EOS or so many."""
    ids = list(prompt)
    while len(ids) < len(prompt) + count:
        ids.append(int(log_probabilities(subject.model, np.array(ids))[-1].argmax()))
        if ids[-1] == subject.tokenizer.eos:
            break
    return ids[len(prompt) :]


def texts(count: int, seed: int = 0, longest: int = 40) -> list[str]:
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefgh  éü日"))
    return ["x" + "".join(rng.choice(letters, rng.integers(1, longest))) for _ in range(count)]
