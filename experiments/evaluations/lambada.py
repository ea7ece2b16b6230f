"""LAMBADA: the last word of 5,153 passages, which people guess from the passage and not from its last sentence
(Paperno et al. 2016, arXiv:1606.06031).

    jaxlm eval MODEL experiments/evaluations/lambada.py

Accuracy is that the whole word is drawn greedily, perplexity that of the word. GPT-2 of 117 M: 45.99 % and 35.1
(Radford et al. 2019, table 3, whose accuracy leaves words out that cannot end a sentence).
"""

from jaxlm.config import LastWord, Records, Task

PASSAGES = Records(
    path="eval/lambada_test.jsonl",
    source="https://huggingface.co/datasets/EleutherAI/lambada_openai as JSON lines (CC BY 4.0)",
)


def tasks() -> tuple[Task, ...]:
    return (LastWord("lambada", PASSAGES),)
