"""As `span_corruption.py`, but the decoder writes the whole text, and spans are one mask token each.

    jaxlm run experiments/objectives/infilling.py

BART's text infilling (Lewis et al. 2019, arXiv:1910.13461).
"""

import dataclasses

from experiments.objectives.span_corruption import experiment as span_corruption
from jaxlm.config import Experiment, Infilling, SentencePiece


def experiment() -> Experiment:
    return dataclasses.replace(
        span_corruption(),
        name="infilling",
        tokenizer=SentencePiece(vocab=4096, special=("<mask>",)),
        objective=Infilling(),
    )
