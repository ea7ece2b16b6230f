"""XQuAD: 1,190 questions about 240 paragraphs of SQuAD, here in English (Artetxe et al. 2020, arXiv:1910.11856).

    jaxlm eval MODEL experiments/evaluations/xquad.py
    jaxlm eval MODEL experiments/evaluations/xquad.py --data.path qa/xquad_de.json

Before each stand two worked examples about paragraphs that are not of the set. Exact match and F1 of words under
SQuAD's normalization. Questions about one paragraph belong together: intervals draw paragraphs.
"""

from jaxlm.config import SQUAD, Generation, ListedShots, Records, Task
from jaxlm.config.sampling import Options

QUESTIONS = Records(
    path="qa/xquad_en.json",
    rows="data.paragraphs.qas",
    source="https://github.com/google-deepmind/xquad (CC BY-SA 4.0)",
)
EXAMPLES = (
    "The lighthouse on the northern cape was built of granite in 1871. Its lamp burned whale oil until it was "
    "given electricity in 1926, and its keeper left it nine years later.\n\n"
    "Question: What did the lamp burn before it was given electricity?\nAnswer: whale oil",
    "A glacier moves because its ice deforms under its own weight and because it slides over its bed. Meltwater "
    "at the bed makes the sliding faster, so that many glaciers move most quickly in early summer.\n\n"
    "Question: When do many glaciers move most quickly?\nAnswer: early summer",
)


def tasks() -> tuple[Task, ...]:
    return (
        Generation(
            name="xquad",
            data=QUESTIONS,
            prompt="{context}\n\nQuestion: {question}\nAnswer:",
            answer="{answers.text}",
            shots=ListedShots(EXAMPLES),
            draw=Options(tokens=24, temperature=0.0),
            stop=("\n",),
            normalization=SQUAD,
            metrics=("exact_match", "f1"),
            cluster="{context}",
        ),
    )
