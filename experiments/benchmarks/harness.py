"""lm-evaluation-harness with jaxlm's model beside its own back end of Hugging Face's, item by item.

    python experiments/benchmarks/harness.py MODEL [--data DIR] [--items 20] [--length 512] [--tasks blimp c4 ...]

MODEL is imported and exported (`jaxlm import`, `jaxlm export`), and both sides answer the same requests of the same
local tasks: log-likelihoods of minimal pairs (BLiMP), of last words (LAMBADA), of whole texts in windows of
`--length` tokens (C4), and greedy text (GSM8K). Printed are the largest difference of two log-likelihoods, how many
greedy flags and texts differ, and how many metrics of the library do. Exit code 1 where a log-likelihood differs by
more than 2e-5 of its size (of 1 at least), or anything else at all. The library's back end wants torch,
transformers and accelerate (extra `parity`). Of whole texts it would score a BOS after BOS, and is told not to
(`add_bos_token`).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

TOLERANCE = 2e-5
"""Of a log-likelihood, of max(1, its size)."""
TASKS = Path(__file__).parents[1] / "evaluations" / "harness"
PAIRS = """
task: blimp_local
dataset_path: json
dataset_kwargs: {data_files: {train: pairs.jsonl}}
output_type: multiple_choice
validation_split: train
doc_to_text: ""
doc_to_target: 0
doc_to_choice: "{{[sentence_good, sentence_bad]}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
NAMES = ("blimp", "lambada", "c4", "gsm8k")


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of two sides' answers to one task."""

    task: str
    items: int
    largest: float
    """Of two log-likelihoods, of max(1, their size)."""
    other: int
    """Greedy flags and texts that are not the same."""
    metrics: int
    """Numbers of the library that differ by more than the tolerance."""

    @property
    def agrees(self) -> bool:
        """Whether both sides said the same."""
        return self.largest <= TOLERANCE and not self.other and not self.metrics


def local_tasks(names: list[str], data: Path, folder: Path) -> list[dict[str, Any]]:
    """The tasks of these names; of BLiMP's archive the first pair of each set is written to `folder`."""
    from jaxlm.evaluate.harness import tasks_of

    found = []
    for name in names:
        if name != "blimp":
            found += tasks_of([str(TASKS / f"{name}.yaml")], data)
            continue
        (folder / "blimp.yaml").write_text(PAIRS)
        with zipfile.ZipFile(data / "minimal_pairs" / "BLiMP.zip") as archive:
            sets = sorted(one for one in archive.namelist() if one.startswith("data/") and one.endswith(".jsonl"))
            lines = [archive.read(one).decode().split("\n")[0] for one in sets]
        (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
        found += tasks_of([str(folder / "blimp.yaml")], folder)
    return found


def compare(ours: Any, theirs: Any, tasks: list[dict[str, Any]], items: int) -> list[Difference]:
    """Both models of the library asked the same; of whole texts theirs puts no second BOS first."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    found = []
    for task in tasks:
        # None is what the tokenizer does, which is right for prompts.
        theirs.add_bos_token = False if task.get("output_type") == "loglikelihood_rolling" else None
        sides = [
            simple_evaluate(
                model=model,
                tasks=[task],
                task_manager=TaskManager(include_defaults=False),
                limit=items,
                bootstrap_iters=0,
            )
            for model in (ours, theirs)
        ]
        found.append(difference(task["task"], *sides))
    return found


def difference(task: str, one: dict[str, Any], other: dict[str, Any]) -> Difference:
    """Of two results of the library."""
    largest, unequal = 0.0, 0
    pairs = list(zip(one["samples"][task], other["samples"][task], strict=True))
    for mine, yours in pairs:
        if mine["arguments"] != yours["arguments"]:
            raise SystemExit(f"{task}: the two sides were asked different things")
        for a, b in zip(_flat(mine["resps"]), _flat(yours["resps"]), strict=True):
            if isinstance(a, float):
                largest = max(largest, abs(a - b) / max(1.0, abs(b)))
            else:
                unequal += a != b
    numbers = [(value, other["results"][task][key]) for key, value in one["results"][task].items()]
    numbers = [(a, b) for a, b in numbers if isinstance(a, float) and isinstance(b, float)]
    metrics = sum(abs(a - b) > TOLERANCE * max(1.0, abs(b)) for a, b in numbers)
    return Difference(task, len(pairs), largest, unequal, metrics)


def _flat(tree: Any) -> list[Any]:
    if isinstance(tree, list | tuple):
        return [leaf for each in tree for leaf in _flat(each)]
    return [tree]


def sides(model: Path, folder: Path, length: int) -> tuple[Any, Any]:
    """(jaxlm's model, the library's own) of one model's files, both reading at most `length` tokens."""
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM

    from jaxlm.evaluate.harness import Model
    from jaxlm.evaluate.subject import of_run
    from jaxlm.interop.export import export
    from jaxlm.interop.imported import bring

    run = bring(model, str(folder / "run"))
    export(run, folder / "out")
    subject = dataclasses.replace(of_run(run), length=length)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder / "out", dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "out")
    theirs = HFLM(pretrained=reference, tokenizer=tokenizer, max_length=length, batch_size=4, device="cpu")
    return Model(subject), theirs


def main(argv: list[str] | None = None) -> int:
    """Prints a line a task. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("JAXLM_DATA", ".")))
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--tasks", nargs="+", choices=NAMES, default=list(NAMES))
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = sides(options.model, Path(folder), options.length)
        tasks = local_tasks(options.tasks, options.data, Path(folder))
        found = compare(ours, theirs, tasks, options.items)
    print(f"{'task':16} {'items':>5} {'largest':>9} {'flags, texts':>12} {'metrics':>8}")
    for one in found:
        print(f"{one.task:16} {one.items:5} {one.largest:9.1e} {one.other:12} {one.metrics:8}")
    return 0 if all(one.agrees for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
