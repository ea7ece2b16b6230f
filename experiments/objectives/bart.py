"""As `infilling.py`, of texts whose sentences stand in another order: the whole noise of BART.

    jaxlm run experiments/objectives/bart.py

Lewis et al. 2019 (arXiv:1910.13461, section 2.2): 30 % of the tokens in spans, all sentences permuted.
"""

import dataclasses

from experiments.objectives.infilling import experiment as infilling
from jaxlm.config import Experiment, Infilling


def experiment() -> Experiment:
    return dataclasses.replace(infilling(), name="bart", objective=Infilling(permuted=1.0))
