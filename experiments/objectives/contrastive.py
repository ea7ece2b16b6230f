"""A small sentence encoder: the two halves of a text find each other among those of a batch.

    jaxlm run experiments/objectives/contrastive.py
    jaxlm run experiments/objectives/contrastive.py --objective.positive dropout --model.dropout 0.1    # SimCSE

Gao et al. 2021 (arXiv:2104.08821); of pairs that belong together any will do (`--data labeled --data.second`).
`jaxlm embed RUN` compares the vectors of texts; `experiments/evaluations/clinc150_clusters.py` and its like judge
them (`jaxlm eval RUN FILE`).
"""

import dataclasses

from experiments.objectives.next_sentence import experiment as next_sentence
from jaxlm.config import Contrastive, Experiment, NoClassifier


def experiment() -> Experiment:
    found = next_sentence()
    return dataclasses.replace(
        found,
        name="contrastive",
        model=dataclasses.replace(found.model, types=0, classifier=NoClassifier()),
        objective=Contrastive(),
    )
