"""A small BERT of Python's documentation and standard library: masked tokens predicted from both sides.

    jaxlm run experiments/objectives/masked_lm.py
    jaxlm run experiments/objectives/masked_lm.py --objective.unit word       # whole words
    jaxlm run experiments/objectives/masked_lm.py --objective.copies 10       # ten masks a document, drawn once

Devlin et al. 2018 (arXiv:1810.04805) without next sentences, as RoBERTa (arXiv:1907.11692) has it.
"""

import dataclasses

from experiments.quickstart import experiment as quickstart
from jaxlm.config import (
    Attention,
    Block,
    Encoder,
    Experiment,
    Gated,
    LayerNorm,
    MaskedLm,
    PreNorm,
    Rope,
    Samples,
    SentencePiece,
)


def experiment() -> Experiment:
    return dataclasses.replace(
        quickstart(),
        name="masked-lm",
        model=Encoder(
            vocab=4096,
            embed=128,
            layers=4,
            block=Block(Attention(heads=2, kv_heads=2, head=64), Gated(width=352), PreNorm()),
            position=Rope(),
            norm=LayerNorm(),
        ),
        tokenizer=SentencePiece(vocab=4096, special=("<mask>",)),
        objective=MaskedLm(),
        samples=Samples(),
    )
