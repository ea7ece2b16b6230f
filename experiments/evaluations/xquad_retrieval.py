"""XQuAD: which of 240 paragraphs each of 1,190 questions is about, in English (Artetxe et al. 2020,
arXiv:1910.11856).

    jaxlm eval MODEL experiments/evaluations/xquad_retrieval.py

Questions about one paragraph belong together: intervals draw paragraphs.
"""

from experiments.evaluations.xquad import QUESTIONS
from jaxlm.config import Retrieval, Task


def tasks() -> tuple[Task, ...]:
    return (Retrieval(name="xquad_retrieval", data=QUESTIONS, cluster="{context}"),)
