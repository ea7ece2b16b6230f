"""A small encoder that tells from two texts whether they stand in their own order, or that reads labels from files.

    jaxlm run experiments/objectives/classification.py
    jaxlm run experiments/objectives/classification.py --data labeled --data.paths train.csv

Files are `.jsonl`, `.csv` or `.tsv`; `--data.text`, `--data.second` and `--data.label` name their fields,
`--data.held_out_paths` files for evaluation, and `--model.classifier.labels` says how many labels there are.
"""

import dataclasses

from experiments.objectives.next_sentence import experiment as next_sentence
from jaxlm.config import Classification, Experiment, Pairs


def experiment() -> Experiment:
    return dataclasses.replace(
        next_sentence(), name="classification", data=Pairs(wrong="swapped"), objective=Classification()
    )
