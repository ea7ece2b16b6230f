"""What only the data tells to be wrong with an experiment."""

import dataclasses

import pytest

from jaxlm import config
from jaxlm.config.errors import UsageError
from jaxlm.data.dataset import in_memory
from jaxlm.train.setup import check_data
from tests.train.tiny import experiment

LEARNED = config.Encoder(vocab=264, position=config.Learned(8), classifier=config.Classifier(2))


def data(length, *labels):
    """Documents of so many tokens, one for each label."""
    return in_memory([[2] * length] * (len(labels) or 1), bytes=1, vocab=264, pad=0, labels=labels or None)


def tree(**changes):
    return dataclasses.replace(experiment(), model=LEARNED, **changes)


def test_places_without_a_vector():
    check_data(tree(), (data(8), data(8)))
    check_data(tree(packing=config.Stream("row")), (data(9),))
    for packing in (config.Stream(), config.BestFit()):
        with pytest.raises(UsageError, match=r"longest document has 9 tokens, and model.position.length is 8: use"):
            check_data(tree(packing=packing), (data(8), data(9)))
    rope = dataclasses.replace(LEARNED, position=config.Rope())
    check_data(dataclasses.replace(tree(), model=rope), (data(9),))


def test_labels_that_are_not_scored():
    check_data(tree(), (data(3, 0, 1, 1), data(3, 0)))
    with pytest.raises(UsageError, match=r"the labels are 0 to 2, and model.classifier.labels is 2: set it to 3"):
        check_data(tree(), (data(3, 0, 1), data(3, 2)))
