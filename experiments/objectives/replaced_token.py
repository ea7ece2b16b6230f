"""A small ELECTRA of Python's documentation and standard library: which tokens has a generator replaced?

    jaxlm run experiments/objectives/replaced_token.py
    jaxlm export replaced-token-HASH DIR      # ElectraForPreTraining, and DIR/generator: ElectraForMaskedLM

Clark et al. 2020 (arXiv:2003.10555). Both have one set of tables, of 64 features, and the generator a quarter of
the model's width, as in the paper's small model. The loss is masked_lm + 50 * replaced.
"""

import dataclasses

from experiments.quickstart import experiment as quickstart
from jaxlm.config import (
    Attention,
    Block,
    Classifier,
    Encoder,
    Experiment,
    Factorized,
    Generator,
    LayerNorm,
    Learned,
    NoHead,
    Plain,
    PostNorm,
    ReplacedTokens,
    Samples,
    SentencePiece,
    Stream,
)


def block(heads: int, head: int) -> Block:
    """As ELECTRA's: a norm after each sum, biases everywhere."""
    width = 4 * heads * head
    return Block(Attention(heads, heads, head, bias="all"), Plain(width, "gelu", bias="all"), PostNorm())


def experiment() -> Experiment:
    return dataclasses.replace(
        quickstart(),
        name="replaced-token",
        model=Encoder(
            vocab=4096,
            embed=128,
            layers=4,
            block=block(heads=2, head=64),
            position=Learned(length=256),
            norm=LayerNorm(1e-12),
            head=NoHead(),
            embedding=Factorized(64),
            types=2,
            classifier=Classifier(1, "tokens", "gelu"),
            generator=Generator(embed=32, layers=4, block=block(heads=2, head=16)),
        ),
        tokenizer=SentencePiece(vocab=4096, special=("<mask>",)),
        packing=Stream(positions="row"),
        objective=ReplacedTokens(),
        samples=Samples(),
    )
