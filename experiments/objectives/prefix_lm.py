"""As `span_corruption.py`: the decoder writes what follows the beginning of a text.

    jaxlm run experiments/objectives/prefix_lm.py

Raffel et al. 2019 (arXiv:1910.10683, section 3.2.3).
"""

import dataclasses

from experiments.objectives.span_corruption import experiment as span_corruption
from experiments.quickstart import experiment as quickstart
from jaxlm.config import Experiment, PrefixLm


def experiment() -> Experiment:
    samples = quickstart().samples
    return dataclasses.replace(span_corruption(), name="prefix-lm", objective=PrefixLm(), samples=samples)
