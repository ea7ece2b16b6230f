"""What the students of a study of divergences say that their language does not have, and what they never say.

    python -m experiments.benchmarks.covering [--study-dir studies/divergences]

Of experiments/ablations/divergences.py, when all of its runs are finished. The language is known
(experiments/teachers/phrases.py), so that nothing needs to be drawn: behind eight true texts that end with each
capital letter, all of its phrases are scored by every student, and by the teacher.

- `impossible` is the probability of letters that cannot follow what stands before, a mean over the letters of true
  phrases, each as often as the language says it;
- `whole` is the probability of going on with a phrase of the capital letter, any of them, without a mistake;
- `phrases` is how many of them a student has at its disposal: exp of the entropy of the phrases that are whole.

Tables and verdicts are made as those of the study are.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.ablations import divergences
from experiments.teachers.phrases import LETTERS, SHARES, document, phrases
from jaxlm.cli.text import table
from jaxlm.config.errors import UsageError
from jaxlm.layers.contracts import Call, Tokens
from jaxlm.layers.logprob import log_probabilities
from jaxlm.study.plan import cells, plan
from jaxlm.study.results import Result, rows
from jaxlm.study.run import finished
from jaxlm.study.table import HEADER, lines
from jaxlm.tokenizers import ByteTokenizer
from jaxlm.train.load import load_run

FILE = "experiments/ablations/divergences.py"
BEGINNINGS, BEFORE = 8, 6
"""True texts before each capital letter, and phrases in each of them."""
Ids = Int[np.ndarray, "capital beginning phrase pos"]
BETTER = {"impossible": "lower", "whole": "higher", "phrases": "higher"}


def scored() -> Ids:
    """Documents' first tokens: a beginning, a capital letter, and one of its phrases."""
    draw, tokenizer = random.Random(2), ByteTokenizer()
    texts = []
    for capital, own in phrases().items():
        begun = [document(draw, BEFORE) + capital for _ in range(BEGINNINGS)]
        texts.append([[[tokenizer.bos, *tokenizer.encode(one + phrase)] for phrase in own] for one in begun])
    return np.array(texts)


@partial(jax.jit, static_argnums=1)
def letters(model: Any, call: Call, ids: Int[Array, "row pos"]) -> Float[Array, "row letter vocab"]:
    """Probabilities of the last letters of rows."""
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    inputs = Tokens(ids, jnp.ones_like(ids), positions)
    hidden = model(inputs, call).hidden[:, -LETTERS - 1 : -1]
    return jnp.exp(log_probabilities(model.logits(hidden, call)))


def measures(
    given: Float[np.ndarray, "capital beginning phrase letter vocab"], ids: np.ndarray
) -> dict[str, float]:
    """`impossible`, `whole` and `phrases` of a model that gives letters such probabilities."""
    true = ids[..., -LETTERS:]
    own = np.take_along_axis(given, true[..., None], axis=-1)[..., 0]
    # No two phrases begin alike: any of them may be begun, and none is left for another.
    possible = own.copy()
    firsts = np.take_along_axis(given[..., 0, 0, :], true[..., 0], axis=-1)
    possible[..., 0] = np.sum(firsts, axis=-1, keepdims=True)
    impossible = np.mean(1 - possible, axis=(0, 1, 3)) @ np.array(SHARES)
    each = np.prod(own.astype(np.float64), axis=-1)
    whole = np.sum(each, axis=-1)
    share = each / whole[..., None]
    entropy = -np.sum(share * np.log(np.maximum(share, 1e-300)), axis=-1)
    return {"impossible": float(impossible), "whole": float(whole.mean()), "phrases": float(np.exp(entropy).mean())}


def of_run(run: str, ids: Ids) -> dict[str, float]:
    """The measures of a run's model."""
    model, _, call = load_run(run)
    call = dataclasses.replace(call, layers="unroll")
    given = [np.asarray(letters(model, call, jnp.asarray(some.reshape(-1, ids.shape[-1])))) for some in ids]
    return measures(np.stack(given).reshape(*ids.shape[:3], LETTERS, -1), ids)


def main() -> None:
    """Prints a table for each measure, and the teacher's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study-dir", type=Path, default=Path("studies/divergences"))
    root, study = parser.parse_args().study_dir, divergences.study()
    ids, found = scored(), {}
    try:
        arms = plan(study)
    except UsageError as error:
        sys.exit(str(error))
    for cell in cells(study, arms):
        if not finished(cell, root):
            sys.exit(f"{root / cell.folder} is not finished: jaxlm study {FILE}")
        found[cell] = of_run(str(root / cell.folder), ids)
    known = math.exp(-sum(share * math.log(share) for share in SHARES))
    teacher = of_run(divergences.TEACHER, ids)
    for name, better in BETTER.items():
        asked = dataclasses.replace(study, metric=name, better=better)
        results = [Result(cell, "finished", values[name]) for cell, values in found.items()]
        print(f"\n{name}, {better} is better\n" + table(HEADER, lines(asked, rows(asked, results))))
    own = [f"{teacher[name]:.4f}" for name in BETTER]
    print("\n" + table(("", *BETTER), [("teacher", *own), ("language", "0", "1", f"{known:.4f}")]))


if __name__ == "__main__":
    main()
