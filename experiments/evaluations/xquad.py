"""XQuAD: 1,190 questions about 240 paragraphs of SQuAD, here in English (Artetxe et al. 2020, arXiv:1910.11856).

    jaxlm eval MODEL experiments/evaluations/xquad.py
    jaxlm eval MODEL experiments/evaluations/xquad.py --data.path qa/xquad_de.json

Exact match and F1 of words under SQuAD's normalization. Questions about one paragraph belong together: intervals
draw paragraphs.
"""

from jaxlm.config import SQUAD, Generation, Records, Task
from jaxlm.config.sampling import Options

QUESTIONS = Records(
    path="qa/xquad_en.json",
    rows="data.paragraphs.qas",
    source="https://github.com/google-deepmind/xquad (CC BY-SA 4.0)",
)


def tasks() -> tuple[Task, ...]:
    return (
        Generation(
            name="xquad",
            data=QUESTIONS,
            prompt="{context}\n\nQuestion: {question}\nAnswer:",
            answer="{answers.text}",
            draw=Options(tokens=24, temperature=0.0),
            stop=("\n",),
            normalization=SQUAD,
            metrics=("exact_match", "f1"),
            cluster="{context}",
        ),
    )
