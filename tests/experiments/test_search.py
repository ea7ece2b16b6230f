"""What `jaxlm plan --search` has found for LLaMA 2 7B on 64 v5p chips: the closed form ranks well enough.

jaxlm plan experiments/pretrain/llama2_7b.py --topology v5p:4x4x4 --search 24 --json FILE
"""

import json

from scipy.stats import spearmanr

from jaxlm.config.chips import CHIPS
from jaxlm.config.load import load_experiment
from jaxlm.planning import search
from tests.experiments.scripts import EXPERIMENTS

FOUND = json.loads((EXPERIMENTS / "benchmarks/llama2_7b-v5p-64-search.json").read_text())


def candidates(count):
    tree = load_experiment(str(EXPERIMENTS / "pretrain/llama2_7b.py"))
    return [list(one.change) for one in search.best(search.candidates(tree, CHIPS["v5p"], 64), count)]


def test_every_mesh_that_fits_was_compiled():
    assert sorted(one["change"] for one in FOUND) == sorted(candidates(1000))
    assert not [one for one in FOUND if one["refusal"]]


def test_the_best_six_of_the_closed_form_hold_the_best():
    best = min(FOUND, key=lambda one: one["seconds"])
    assert best["change"] in candidates(6)
    assert len(FOUND) == 24


def test_the_closed_form_ranks_as_the_compiler_does():
    closed, compiled = ([one[name] for one in FOUND] for name in ("closed_seconds", "seconds"))
    assert spearmanr(closed, compiled).statistic >= 0.9
