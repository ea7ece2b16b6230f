"""NQ-open: questions that people asked a search engine, without the page that answers them (Lee et al. 2019,
arXiv:1906.00300).

    jaxlm eval MODEL experiments/evaluations/nq_open.py --limit 500

Exact match with any of the answers under SQuAD's normalization, after five questions drawn by seed, which are asked
no more. GPT-3 of 175 B with 64 of them: 29.9 % (arXiv:2005.14165, table 3.3).
"""

from jaxlm.config import SQUAD, DrawnShots, Generation, Records, Task
from jaxlm.config.sampling import Options

QUESTIONS = Records(
    path="qa/nq_open_dev.jsonl",
    source="https://github.com/google-research-datasets/natural-questions (nq_open, CC BY-SA 3.0)",
)


def tasks() -> tuple[Task, ...]:
    return (
        Generation(
            name="nq_open",
            data=QUESTIONS,
            prompt="Q: {question}?\nA:",
            answer="{answer}",
            shots=DrawnShots(QUESTIONS, count=5),
            draw=Options(tokens=16, temperature=0.0),
            stop=("\n",),
            normalization=SQUAD,
            metrics=("exact_match", "f1"),
        ),
    )
