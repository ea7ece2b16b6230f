"""What can be seen to be wrong between tasks and the model that they are asked of, before either is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jaxlm.config.errors import UsageError
from jaxlm.config.experiment import Experiment
from jaxlm.config.model import Classifier, Encoder, EncoderDecoder
from jaxlm.config.tasks import Choices, Generation, LastWord, MinimalPairs, Perplexity, Task
from jaxlm.config.vector_tasks import Clustering, Labels, Probe, Retrieval, Similarity


def check_fit(tasks: Iterable[Task], experiment: Experiment) -> None:
    """Raises one UsageError that lists each task which a model of the experiment cannot be asked, and why."""
    if problems := [f"{task.name}: {one}" for task in tasks for one in _problems(task, experiment)]:
        raise UsageError("\n".join(problems))


def _problems(task: Task, experiment: Experiment) -> Iterator[str]:
    model, length = experiment.model, experiment.train.length
    two_sided = {Encoder: "an encoder", EncoderDecoder: "an encoder-decoder"}.get(type(model))
    match task:
        case Perplexity() | Choices() | MinimalPairs() | LastWord() if two_sided:
            yield f"{two_sided} gives texts no log-probability: this task wants a decoder or RWKV"
        case Generation() if two_sided:
            yield f"{two_sided} goes on with no text: this task wants a decoder or RWKV"
        case Generation() if task.draw.tokens >= length:
            yield (
                f"draw.tokens is {task.draw.tokens}: the model reads train.length = {length} tokens, prompt and "
                "answer together; draw fewer"
            )
        case Similarity() | Clustering() | Probe() | Retrieval():
            if isinstance(model, EncoderDecoder):
                yield "an encoder-decoder has no vectors of texts: this task wants an encoder or a decoder"
            elif (longest := task.vectors.longest or length) < 3:
                yield f"vectors.longest is {longest}: expected 3 or more, of which two are special"
        case Labels():
            classifier = getattr(model, "classifier", None)
            if not isinstance(classifier, Classifier) or classifier.of == "tokens":
                yield "the model has no classifier of texts: train one by the objective classification, or probe"
