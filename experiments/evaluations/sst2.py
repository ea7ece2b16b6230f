"""SST-2: whether a sentence of a film's review is positive (Socher et al. 2013), asked of a model that was not
trained for it, after worked examples.

    jaxlm eval MODEL experiments/evaluations/sst2.py
    jaxlm eval MODEL experiments/evaluations/sst2.py --form letters --shots.count 16

`experiments/objectives/classification.py` trains a classifier on the same files.
"""

from jaxlm.config import Choices, DrawnShots, Records, Task

SOURCE = "https://github.com/openai/generating-reviews-discovering-sentiment (data/)"
EXAMPLES = Records(path="classify/sst2_train.csv", source=SOURCE)
SENTENCES = Records(path="classify/sst2_dev.csv", source=SOURCE)


def tasks() -> tuple[Task, ...]:
    return (
        Choices(
            name="sst2",
            data=SENTENCES,
            prompt="Review: {sentence}\n",
            cue="Sentiment:",
            choices=("negative", "positive"),
            answer="{label}",
            normalizations=("none", "pmi"),
            shots=DrawnShots(EXAMPLES, count=4),
        ),
    )
