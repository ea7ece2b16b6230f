"""Where parameters begin, and what only the data tells to be wrong with an experiment."""

import dataclasses

import jax
import pytest

from jaxlm import config
from jaxlm.config.errors import Failure, UsageError
from jaxlm.data.dataset import in_memory
from jaxlm.layers.names import flatten
from jaxlm.runs import directory
from jaxlm.train.checkpoints import Checkpoints
from jaxlm.train.initial import initial_state
from jaxlm.train.setup import check_data, make_setup
from tests.train.tiny import experiment

LEARNED = config.Encoder(vocab=264, position=config.Learned(8), classifier=config.Classifier(2))


CLASSIFIER = config.Classifier(3, "mean")


@pytest.fixture
def run(tmp_path):
    """`run(model)`: a run of it with a checkpoint, and its parameters."""

    def make(model):
        tree = dataclasses.replace(experiment(), model=model)
        path = tmp_path / type(model.classifier).__name__
        directory.release(directory.open_run(tree, str(path)))
        state = initial_state(make_setup(tree, jax.devices()[:1]))
        with Checkpoints(path / "checkpoints") as checkpoints:
            checkpoints.save(1, state, {})
        return str(path), flatten(state.model)

    return make


def began(model, path):
    tree = dataclasses.replace(experiment(), model=model, initial=path)
    tree = dataclasses.replace(tree, train=dataclasses.replace(tree.train, seed=7))
    return flatten(initial_state(make_setup(tree, jax.devices()[:1])).model)


def test_a_classifier_that_the_initial_model_lacks_begins_anew(run):
    plain = dataclasses.replace(experiment().model, classifier=config.NoClassifier())
    model = dataclasses.replace(plain, classifier=CLASSIFIER)
    path, known = run(plain)
    found = began(model, path)
    new = {name for name in found if name.startswith("classifier.")}
    assert found.keys() - known.keys() == new != set()
    assert all((found[name] == known[name]).all() for name in known)
    assert any(found[name].any() for name in new)


def test_a_classifier_that_it_has_is_taken(run):
    model = dataclasses.replace(experiment().model, classifier=CLASSIFIER)
    path, known = run(model)
    found = began(model, path)
    assert all((found[name] == known[name]).all() for name in known)
    wider = dataclasses.replace(model, classifier=config.Classifier(4, "mean"))
    with pytest.raises(Failure, match=r"classifier\.out\.kernel"):
        began(wider, path)


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


def test_positions_of_rows_that_are_written_anew():
    two_sided = config.EncoderDecoder(vocab=264, position=config.Learned(8))
    check_data(dataclasses.replace(tree(), model=two_sided), (data(9),))


def test_no_documents_and_no_pairs_that_belong_together():
    with pytest.raises(Failure, match="there are no documents to train on, or none to evaluate"):
        check_data(tree(), (data(3), in_memory([], bytes=1, vocab=264, pad=0)))
    pairs = tree(objective=config.Contrastive(label=1))
    check_data(pairs, (data(3, 0, 1), data(3, 1)))
    with pytest.raises(UsageError, match=r"objective.label is 1, and the labels are \[0\]: none of the pairs"):
        check_data(pairs, (data(3, 0, 1), data(3, 0)))


def test_labels_that_are_not_scored():
    check_data(tree(), (data(3, 0, 1, 1), data(3, 0)))
    with pytest.raises(UsageError, match=r"the labels are 0 to 2, and model.classifier.labels is 2: set it to 3"):
        check_data(tree(), (data(3, 0, 1), data(3, 2)))
