"""As `span_corruption.py`, with a mixture of seven denoisers that tell which they are.

    jaxlm run experiments/objectives/ul2.py

Tay et al. 2022 (arXiv:2205.05131).
"""

import dataclasses

from experiments.objectives.span_corruption import experiment as span_corruption
from jaxlm.config import Experiment, SentencePiece, Ul2


def experiment() -> Experiment:
    return dataclasses.replace(
        span_corruption(),
        name="ul2",
        tokenizer=SentencePiece(vocab=4096, special=("[R]", "[X]", "[S]"), sentinels=48),
        objective=Ul2(sentinels=48),
    )
