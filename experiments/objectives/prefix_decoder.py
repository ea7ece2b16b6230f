"""The quickstart's decoder, which sees the beginning of a text from both sides and predicts what follows it.

    jaxlm run experiments/objectives/prefix_decoder.py
    jaxlm generate runs/prefix-decoder-... --reading prefix --prompt "def "

Raffel et al. 2019 (arXiv:1910.10683, section 3.2.3, "prefix LM"); `prefix_lm.py` has an encoder for the beginning.
"""

import dataclasses

from experiments.quickstart import experiment as quickstart
from jaxlm.config import Experiment, PrefixLm


def experiment() -> Experiment:
    return dataclasses.replace(quickstart(), name="prefix-decoder", objective=PrefixLm())
