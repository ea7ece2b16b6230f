"""What `jaxlm plan --search` has found for LLaMA 2 7B on 64 v5p chips: the closed form ranks well enough.

jaxlm plan experiments/pretrain/llama2_7b.py --topology v5p:4x4x4 --search 9 --json FILE
"""

import json

from jaxlm.config.chips import CHIPS
from jaxlm.config.load import load_experiment
from jaxlm.planning import search
from tests.experiments.scripts import EXPERIMENTS

FOUND = json.loads((EXPERIMENTS / "benchmarks/llama2_7b-v5p-64-search.json").read_text())


def candidates():
    tree = load_experiment(str(EXPERIMENTS / "pretrain/llama2_7b.py"))
    return search.best(search.candidates(tree, CHIPS["v5p"], 64), 24)


def test_it_is_what_the_closed_form_would_compile_first():
    first = [list(one.change) for one in candidates()[: len(FOUND)]]
    assert sorted(one["change"] for one in FOUND) == sorted(first)


def test_the_best_six_of_the_closed_form_hold_the_best():
    six = [list(one.change) for one in candidates()[:6]]
    best = min(FOUND, key=lambda one: one["seconds"])
    assert best["change"] in six
    assert len(FOUND) > len(six)
