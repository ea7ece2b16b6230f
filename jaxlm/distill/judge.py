"""Scores of a judge: another conversation with a teacher, about an answer (arXiv:2306.05685)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from jaxlm.distill.request import Prompt
from jaxlm.distill.sample import Sample

WORST, BEST = 0, 10
TEMPLATE = """Below are a request and an answer to it. Judge how good the answer is: whether it is right, complete
and clear, and does what was asked. Do not reward length.

<request>
{prompt}
</request>

<answer>
{answer}
</answer>

Give your reasons in a few sentences. Then end with one line of this form, N from 0 (useless) to 10 (perfect):
Score: N"""
SCORE = re.compile(r"score\W{0,6}?(-?\d+(?:\.\d+)?)", re.IGNORECASE)


def question(sample: Sample, template: str = TEMPLATE) -> Prompt:
    """What a judge is asked about a sample, by whose key it is found again."""
    messages = sample.prompt.messages
    asked = (
        messages[0]["content"]
        if len(messages) == 1
        else "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)
    )
    # Not str.format: what a prompt or an answer holds in braces is theirs.
    parts = re.split(r"(\{prompt\}|\{answer\})", template)
    text = "".join({"{prompt}": asked, "{answer}": sample.text}.get(part, part) for part in parts)
    return Prompt(sample.key, ({"role": "user", "content": text},))


def score(text: str) -> float | None:
    """The last score of a judgment; None where there is none from 0 to 10."""
    found = SCORE.findall(text)
    value = float(found[-1]) if found else -1.0
    return value if WORST <= value <= BEST else None


def scores(judgments: Iterable[Sample]) -> dict[str, float | None]:
    """Of each sample, by its key."""
    return {one.prompt.name: score(one.text) for one in judgments}


def good_enough(found: Mapping[str, float | None], least: float | int):
    """The check that a judge gave at least so much."""

    def check(sample: Sample) -> str | None:
        value = found.get(sample.key)
        if value is None:
            return "the judge gave no score"
        return None if value >= least else f"below {least:g}"

    return check
