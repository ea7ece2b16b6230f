"""A small T5 of Python's documentation and standard library: hidden spans, written out by the decoder.

    jaxlm run experiments/objectives/span_corruption.py
    jaxlm run experiments/objectives/span_corruption.py --objective.rate 0.5 --objective.span 8

Raffel et al. 2019 (arXiv:1910.10683). Other ways to hide text, each with a file of its own: `prefix_lm.py`,
`ul2.py`, `infilling.py`.
"""

import dataclasses

from experiments.quickstart import experiment as quickstart
from jaxlm.config import (
    Attention,
    Block,
    EncoderDecoder,
    Experiment,
    Gated,
    RelativeBias,
    Samples,
    SentencePiece,
    SpanCorruption,
)


def experiment() -> Experiment:
    return dataclasses.replace(
        quickstart(),
        name="span-corruption",
        model=EncoderDecoder(
            vocab=4096,
            embed=128,
            encoder_layers=2,
            decoder_layers=2,
            block=Block(Attention(heads=2, kv_heads=2, head=64), Gated(width=352)),
            position=RelativeBias(),
        ),
        tokenizer=SentencePiece(vocab=4096, sentinels=32),
        objective=SpanCorruption(sentinels=32, target_length=96),
        samples=Samples(),
    )
