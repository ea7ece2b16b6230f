"""SST-2: whether a sentence of a film's review is positive (Socher et al. 2013), by a classifier trained for it.

    jaxlm run experiments/objectives/classification.py --data labeled --data.paths train_binary_sent.csv \
        --data.text sentence
    jaxlm eval RUN experiments/evaluations/sst2_labels.py

Accuracy, macro-F1, and how far its probabilities can be believed.
"""

from experiments.evaluations.sst2 import SENTENCES
from jaxlm.config import Labels, Task


def tasks() -> tuple[Task, ...]:
    return (Labels(name="sst2_labels", data=SENTENCES, text="{sentence}"),)
