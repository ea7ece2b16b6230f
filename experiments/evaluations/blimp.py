"""BLiMP: 67 sets of 1,000 minimal pairs of English sentences (Warstadt et al. 2020, arXiv:1912.00582).

    jaxlm eval MODEL experiments/evaluations/blimp.py --data.each 10

Accuracy over all pairs, and of each set in the file of results. In the paper GPT-2 has 81.5 %, people
88.6 %.
"""

from jaxlm.config import MinimalPairs, Records, Task

PAIRS = Records(
    path="minimal_pairs/BLiMP.zip",
    members="data/*.jsonl",
    source="https://github.com/alexwarstadt/blimp (CC BY 4.0)",
)


def tasks() -> tuple[Task, ...]:
    return (MinimalPairs("blimp", PAIRS, good="{sentence_good}", bad="{sentence_bad}", group="{UID}"),)
