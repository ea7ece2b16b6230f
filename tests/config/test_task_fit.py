"""Tasks that a model of an experiment cannot be asked are refused by what its config says."""

import pytest

from jaxlm.config import (
    Choices,
    Classifier,
    Clustering,
    Decoder,
    Encoder,
    EncoderDecoder,
    Experiment,
    Generation,
    Labels,
    LastWord,
    MinimalPairs,
    Perplexity,
    Probe,
    Rwkv7,
    Train,
    Vectors,
)
from jaxlm.config.errors import UsageError
from jaxlm.config.sampling import Options
from jaxlm.config.task_fit import check_fit

NEXT = (Perplexity(), Choices(), MinimalPairs(), LastWord(), Generation())


def experiment(model, length=128) -> Experiment:
    return Experiment("one", model, train=Train(length=length))


def test_what_fits():
    for model in (Decoder(), Rwkv7()):
        check_fit((*NEXT, Clustering(), Generation(draw=Options(tokens=127))), experiment(model))
    check_fit((Clustering(), Probe(), Labels()), experiment(Encoder(classifier=Classifier())))


@pytest.mark.parametrize(
    ("tasks", "model", "said"),
    [
        *(((task,), Encoder(), "an encoder g") for task in NEXT),
        *(((task,), EncoderDecoder(), "an encoder-decoder g") for task in NEXT),
        ((Generation(draw=Options(tokens=128)),), Decoder(), "draw.tokens is 128: the model reads"),
        ((Clustering(),), EncoderDecoder(), "an encoder-decoder has no vectors"),
        ((Clustering(vectors=Vectors(longest=2)),), Encoder(), "vectors.longest is 2"),
        ((Labels(),), Encoder(), "no classifier of texts"),
        ((Labels(),), Decoder(), "no classifier of texts"),
        ((Labels(),), Encoder(classifier=Classifier(of="tokens")), "no classifier of texts"),
    ],
)
def test_what_does_not_fit(tasks, model, said):
    with pytest.raises(UsageError) as error:
        check_fit(tasks, experiment(model))
    assert str(error.value).startswith(f"{tasks[0].name}: ")
    assert said in str(error.value)


def test_all_that_is_wrong_is_listed():
    with pytest.raises(UsageError, match=r"^choices: an encoder .*\nlabels: the model has no classifier"):
        check_fit((Choices(), Clustering(), Labels()), experiment(Encoder()))
