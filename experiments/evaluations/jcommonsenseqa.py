"""JCommonsenseQA: questions of common sense in Japanese, with five answers each (Kurihara et al. 2022, JGLUE).

    jaxlm eval MODEL experiments/evaluations/jcommonsenseqa.py
    jaxlm eval MODEL experiments/evaluations/jcommonsenseqa.py --form letters

Chance is 20 %. Answers are written without a space before them, so that a token may span where they begin.
"""

from jaxlm.config import Choices, DrawnShots, Records, Task

SOURCE = "https://github.com/yahoojapan/JGLUE (datasets/jcommonsenseqa-v1.3, CC BY-SA 4.0)"
EXAMPLES = Records(path="ja/jcommonsenseqa_train.json", format="jsonl", source=SOURCE)
QUESTIONS = Records(path="ja/jcommonsenseqa_valid.json", format="jsonl", source=SOURCE)


def tasks() -> tuple[Task, ...]:
    return (
        Choices(
            name="jcommonsenseqa",
            data=QUESTIONS,
            prompt="質問：{question}\n",
            cue="回答：",
            choices=("{choice0}", "{choice1}", "{choice2}", "{choice3}", "{choice4}"),
            answer="{label}",
            normalizations=("none", "token", "character", "byte", "pmi"),
            delimiter="",
            shots=DrawnShots(EXAMPLES, count=3),
        ),
    )
