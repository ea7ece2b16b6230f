"""JSTS: how alike 1,457 pairs of Japanese sentences are, from 0 to 5, of JGLUE (Kurihara et al. 2022, LREC).

    jaxlm eval MODEL experiments/evaluations/jsts.py

The usual number is Spearman's correlation of the pairs' cosines with the scores that people gave.
"""

from jaxlm.config import Records, Similarity, Task

PAIRS = Records(
    path="ja/jsts_valid.json",
    format="jsonl",
    source="https://github.com/yahoojapan/JGLUE (datasets/jsts-v1.3/valid-v1.3.json, CC BY-SA 4.0)",
)


def tasks() -> tuple[Task, ...]:
    return (Similarity(name="jsts", data=PAIRS),)
