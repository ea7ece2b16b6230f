"""What an encoder is for, by the `architectures` of its config.json: a head, a classifier, both or neither."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from jaxlm.config.errors import Failure, UsageError
from jaxlm.config.head import Head, NoHead, Transformed
from jaxlm.config.model import Classifier, Encoder, NoClassifier
from jaxlm.families.settings import Settings

MASKED = "ForMaskedLM"


def read(
    told: Settings,
    stem: str,
    head: Transformed,
    hidden: str,
    *,
    without: tuple[str, ...] = (),
    own: Mapping[str, tuple[Head, NoClassifier | Classifier]] = MappingProxyType({}),
) -> dict[str, Any]:
    """The head and the classifier of an `Encoder`; a masked language model's where nothing is named.

    `head` is that of the family's masked language models, `hidden` the activation of its classifiers of documents.
    The family is `without` some tasks, and has some of its `own`. Raises Failure for what is not known.
    """
    name = (told.take("architectures", None) or [stem + MASKED])[0]
    labels = len(told.take("id2label", None) or range(2))
    found = {
        MASKED: (head, NoClassifier()),
        "ForPreTraining": (head, Classifier(2, "first", hidden)),
        "Model": (NoHead(), NoClassifier()),
        "ForNextSentencePrediction": (NoHead(), Classifier(2, "first", hidden)),
        "ForSequenceClassification": (NoHead(), Classifier(labels, "first", hidden)),
        "ForMultipleChoice": (NoHead(), Classifier(1, "first", hidden)),
        "ForTokenClassification": (NoHead(), Classifier(labels, "tokens", "none")),
        "ForQuestionAnswering": (NoHead(), Classifier(2, "tokens", "none")),
        **own,
    }
    found = {task: parts for task, parts in found.items() if task not in without}
    task = name.removeprefix(stem)
    if not name.startswith(stem) or task not in found:
        known = ", ".join(stem + one for one in found)
        raise Failure(f"config.json: architectures names {name!r}, and only {known} are known here")
    return dict(zip(("head", "classifier"), found[task], strict=True))


def write(model: Encoder, stem: str, other: str) -> dict[str, Any]:
    """The settings of which `read` makes a model's head and classifier. Raises UsageError with the text `other`.

    What two tasks have in common is written as one of them: two labels of tokens are the start and the end of an
    answer, a label of documents is one of a sequence's.
    """
    match model.head, model.classifier:
        case Transformed(), NoClassifier():
            task = MASKED
        case Transformed(), Classifier(2, "first"):
            task = "ForPreTraining"
        case NoHead(), NoClassifier():
            task = "Model"
        case NoHead(), Classifier(2, "tokens", "none"):
            task = "ForQuestionAnswering"
        case NoHead(), Classifier(of="tokens", hidden="none"):
            task = "ForTokenClassification"
        case NoHead(), Classifier(of="first"):
            task = "ForSequenceClassification"
        case NoHead(), Classifier(1, "tokens"):
            task = "ForPreTraining"  # ELECTRA's
        case _:
            raise UsageError(other)
    told: dict[str, Any] = {"architectures": [stem + task]}
    if isinstance(model.classifier, Classifier):
        names = {str(number): f"LABEL_{number}" for number in range(model.classifier.labels)}
        told |= {"id2label": names, "label2id": {name: int(number) for number, name in names.items()}}
    return told
