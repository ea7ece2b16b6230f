"""The quickstart's decoder, half of whose documents have their middle at the end: it learns to fill it in.

    jaxlm run experiments/objectives/fill_in_the_middle.py

Bavarian et al. 2022 (arXiv:2207.14255).
"""

import dataclasses

from experiments.quickstart import experiment as quickstart
from jaxlm.config import Experiment, FillInTheMiddle, SentencePiece


def experiment() -> Experiment:
    return dataclasses.replace(
        quickstart(),
        name="fill-in-the-middle",
        tokenizer=SentencePiece(vocab=4096, special=("<fim_prefix>", "<fim_middle>", "<fim_suffix>")),
        objective=FillInTheMiddle(),
    )
