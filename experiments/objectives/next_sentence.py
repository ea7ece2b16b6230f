"""A small BERT as it was first trained: hidden tokens of pairs of texts, and whether the second follows the first.

    jaxlm run experiments/objectives/next_sentence.py
    jaxlm run experiments/objectives/next_sentence.py --data.wrong swapped    # the order of sentences, as ALBERT

Devlin et al. 2018 (arXiv:1810.04805, section 3.1); Lan et al. 2019 (arXiv:1909.11942, section 3.1).
"""

import dataclasses

from experiments.objectives.masked_lm import experiment as masked_lm
from jaxlm.config import BestFit, Classifier, Experiment, NextSentence, Pairs


def experiment() -> Experiment:
    found = masked_lm()
    return dataclasses.replace(
        found,
        name="next-sentence",
        model=dataclasses.replace(found.model, types=2, classifier=Classifier()),
        data=Pairs(),
        packing=BestFit(),
        objective=NextSentence(),
    )
