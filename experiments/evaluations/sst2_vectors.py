"""SST-2: whether a sentence of a film's review is positive (Socher et al. 2013), read off the sentences' vectors.

    jaxlm eval MODEL experiments/evaluations/sst2_vectors.py
    jaxlm eval MODEL experiments/evaluations/sst2_vectors.py --train.limit 1000 --train.seed 0

A linear probe and a vote of neighbors learn from the 6,920 sentences for training. `sst2_labels.py` asks a
classifier that was trained on them.
"""

from experiments.evaluations.sst2 import EXAMPLES, SENTENCES
from jaxlm.config import Neighbors, Probe, Task


def tasks() -> tuple[Task, ...]:
    given = {"train": EXAMPLES, "data": SENTENCES, "text": "{sentence}"}
    return (
        Probe(name="sst2_probe", **given),
        Probe(name="sst2_neighbors", reader=Neighbors(), **given),
    )
