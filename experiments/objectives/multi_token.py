"""The quickstart's decoder with three heads beside its last layer: they predict the 2nd to 4th token that follows.

    jaxlm run experiments/objectives/multi_token.py
    jaxlm run experiments/objectives/multi_token.py --model.ahead 1 --objective.coefficient 0.5

Gloeckle et al. 2024 (arXiv:2404.19737), who take as many layers from the trunk as they add heads. The head of the
next token alone generates text and gives bits per byte.
"""

import dataclasses

from experiments.quickstart import experiment as quickstart
from jaxlm.config import Experiment, MultiToken


def experiment() -> Experiment:
    base = quickstart()
    return dataclasses.replace(
        base,
        name="multi-token",
        model=dataclasses.replace(base.model, ahead=3),
        objective=MultiToken(),
    )
