"""GSM8K: grade-school mathematics in words, after eight solved problems (Cobbe et al. 2021, arXiv:2110.14168; eight
solutions as in Wei et al. 2022, arXiv:2201.11903).

    jaxlm eval MODEL experiments/evaluations/gsm8k.py --limit 100
    jaxlm eval MODEL experiments/evaluations/gsm8k.py --draw.samples 8 --draw.temperature 0.7 --vote true

The solved problems are drawn by seed out of the training set, and the same for all items; the answer is what
follows "####". LLaMA 2 7B: 14.6 % (arXiv:2307.09288, table 3).
"""

from jaxlm.config import DrawnShots, Generation, Records, Task
from jaxlm.config.sampling import Options

SOURCE = "https://github.com/openai/grade-school-math (MIT)"
TRAINING = Records(path="instruct/gsm8k_train.jsonl", source=SOURCE)
PROBLEMS = TRAINING
"""What is asked: `--data.path` names the test set where it is there."""
NUMBER = r"#### *(-?[$0-9.,]+)"


def tasks() -> tuple[Task, ...]:
    return (
        Generation(
            name="gsm8k",
            data=PROBLEMS,
            prompt="Question: {question}\nAnswer:",
            answer="{answer}",
            shots=DrawnShots(TRAINING, count=8),
            draw=Options(tokens=256, temperature=0.0),
            stop=("Question:", "\n\n"),
            pattern=NUMBER,
            answer_pattern=NUMBER,
            metrics=("number",),
        ),
    )
