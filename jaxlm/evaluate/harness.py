"""lm-evaluation-harness over local data: a jaxlm model as its `LM` (extra `eval`)."""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

# Nothing is to be downloaded; the library reads this when it is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from lm_eval import simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from yaml import YAMLError

from jaxlm.config.errors import UsageError
from jaxlm.config.sampling import Options
from jaxlm.evaluate import results
from jaxlm.evaluate.draw import draw
from jaxlm.evaluate.results import Metric, Subject
from jaxlm.evaluate.score import score

log = logging.getLogger(__name__)

TOKENS = 256
"""Tokens that are drawn where a task does not say how many, as by the library's other models."""
KNOWN = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k", "min_p"}
"""Settings of generation that are understood."""


class Model(TemplateLM):
    """A subject as the library asks it; texts begin with BOS, as Hugging Face's tokenizers of such models do.

    Of prompts that have to be cut a warning says how many they are.
    """

    def __init__(self, subject: Subject, seed: int = 0):
        super().__init__()
        self.subject = subject
        self.seed = seed

    @property
    def eot_token_id(self) -> int:
        return self.subject.tokenizer.eos

    @property
    def prefix_token_id(self) -> int:
        return self.subject.tokenizer.bos

    @property
    def max_length(self) -> int:
        """Tokens of a row."""
        return self.subject.length

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens after BOS, without it where `add_special_tokens` is False."""
        ids = self.subject.tokenizer.encode(string).tolist()
        return ids if add_special_tokens is False else [self.prefix_token_id, *ids]

    def _loglikelihood_tokens(self, requests: Sequence[tuple], **_: Any) -> list[tuple[float, bool]]:
        pairs = [(np.array(context, np.int32), np.array(ids, np.int32)) for _, context, ids in requests]
        scored = score(self.subject, pairs)
        # Several continuations may have one prompt.
        cut: dict[bytes, bool] = {}
        for (context, _), one in zip(pairs, scored):
            cut[context.tobytes()] = one.cut or cut.get(context.tobytes(), False)
        for note in results.shortened([*cut.values()]):
            log.warning(note)
        return [(one.total, bool(one.greedy.all())) for one in scored]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, whose first tokens come after BOS: each token once, BOS never.

        The library's Hugging Face models (0.4.13) encode these as they do prompts: where the tokenizer begins texts
        with BOS they score a BOS after BOS too, which no model was trained for (SmolLM2: 21 nats a
        text). Given `add_bos_token=False` they score what is scored here.
        """
        windows, owner = [], []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            found = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)
            cut = [make_disjoint_window(one) for one in found]
            windows += [(None, *one) for one in cut]
            owner += [number] * len(cut)
        totals = [0.0] * len(requests)
        for number, (nats, _) in zip(owner, self._loglikelihood_tokens(windows)):
            totals[number] += nats
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts up to a stop string or EOS; a prompt that is asked several times gets as many samples."""
        found, cut = [""] * len(requests), []
        same: dict[tuple[str, str], list[int]] = {}
        for number, (context, settings) in enumerate(request.args for request in requests):
            same.setdefault((repr(settings), context), []).append(number)
        groups: dict[tuple[str, int], list[list[int]]] = {}
        for (settings, _), numbers in same.items():
            groups.setdefault((settings, len(numbers)), []).append(numbers)
        for (_, samples), asked in groups.items():
            options, stop = _options(requests[asked[0][0]].args[1], self.seed)
            if options.temperature:
                options = replace(options, samples=samples)
            prompts = [np.array(self.tok_encode(requests[numbers[0]].args[0]), np.int32) for numbers in asked]
            for numbers, drawn in zip(asked, draw(self.subject, prompts, options, stop)):
                cut.append(drawn[0].cut)
                # Of greedy texts there is one, however often it is asked for.
                for number, one in zip(numbers, itertools.cycle(drawn)):
                    found[number] = one.text
        for note in results.shortened(cut, "left no room for an answer"):
            log.warning(note)
        return found


def _options(given: dict[str, Any], seed: int) -> tuple[Options, list[str]]:
    """The library's settings as ours. Raises UsageError for one that is not understood."""
    wanted: dict[str, Any] = dict(normalize_gen_kwargs(given, TOKENS))
    if unknown := wanted.keys() - KNOWN:
        raise UsageError(f"generation_kwargs has {min(unknown)}: expected {', '.join(sorted(KNOWN))}")
    greedy = not wanted.pop("do_sample")
    stop = handle_stop_sequences(wanted.pop("until"), eos=None)
    tokens = wanted.pop("max_gen_toks")
    wanted["temperature"] = 0.0 if greedy else wanted.get("temperature", 1.0)
    return Options(tokens=tokens, seed=seed, **wanted), [one for one in stop if one]


def tasks_of(files: Sequence[str], root: Path) -> list[dict[str, Any]]:
    """Task files with their data below `root`, nothing of the library's own tasks.

    Raises UsageError for a file that is not there or no task, and for data that are not local or not there.
    """
    found = []
    for name in files:
        if not Path(name).is_file():
            raise UsageError(f"there is no {name}: name a task of lm-evaluation-harness, a .yaml file")
        try:
            config = load_yaml(name, resolve_func=True)
        except (YAMLError, ValueError, OSError, ImportError, AttributeError) as error:
            raise UsageError(f"{name} is no task of lm-evaluation-harness: {error}") from None
        if "task" not in config:
            raise UsageError(f"{name} is no task: it has no `task:`")
        files_of = (config.get("dataset_kwargs") or {}).get("data_files")
        if not files_of:
            raise UsageError(f"{name} has no local data: write dataset_path: json and dataset_kwargs: data_files")
        placed = {split: _placed(name, each, root) for split, each in _by_split(files_of).items()}
        found.append({**config, "dataset_kwargs": {**config["dataset_kwargs"], "data_files": placed}})
    return found


def _by_split(files: Any) -> dict[str, Any]:
    return files if isinstance(files, dict) else {"train": files}


def _placed(name: str, files: Any, root: Path) -> list[str]:
    paths = [root / one for one in ([files] if isinstance(files, str) else files)]
    if missing := [path for path in paths if not path.is_file()]:
        raise UsageError(
            f"{name}: there is no {missing[0]}. Name the directory it is in by --data DIR or JAXLM_DATA"
        )
    return [str(path.resolve()) for path in paths]


def evaluate(subject: Subject, tasks: list[dict[str, Any]], limit: int = 0, seed: int = 0) -> dict[str, Any]:
    """What `lm_eval.simple_evaluate` returns, items included."""
    return simple_evaluate(
        model=Model(subject, seed),
        tasks=list(tasks),
        task_manager=TaskManager(include_defaults=False),
        limit=limit or None,
        bootstrap_iters=0,
        random_seed=seed,
    )


def metrics(found: dict[str, Any]) -> dict[str, list[Metric]]:
    """The library's numbers of each task with our intervals, of its items; nan where it does not keep these."""
    return {task: [_metric(found, task, key) for key in _keys(values)] for task, values in found["results"].items()}


def _keys(values: dict[str, Any]) -> list[str]:
    numbers = [key for key, value in values.items() if "," in key and isinstance(value, int | float)]
    return [key for key in numbers if "_stderr" not in key]


def _metric(found: dict[str, Any], task: str, key: str) -> Metric:
    name, _, filtered = key.partition(",")
    items = [one for one in found["samples"][task] if one.get("filter", filtered) == filtered and name in one]
    shown = name if filtered == "none" else f"{name} ({filtered})"
    value = found["results"][task][key]
    made = _with_interval(shown, [one[name] for one in items])
    same = [one for one in made if math.isclose(one.value, value, rel_tol=1e-6, abs_tol=1e-9)]
    return same[0] if same else Metric(shown, value, math.nan, math.nan, len(items))


def _with_interval(name: str, items: list[Any]) -> list[Metric]:
    """What the library may have made of items: the caller takes that of its value."""
    if items and all(isinstance(one, tuple | list) and len(one) == 2 for one in items):
        nats, sizes = (-np.array([one[0] for one in items]), np.array([one[1] for one in items]))
        bits = results.ratio(name, nats, sizes, lambda one: one / math.log(2))
        return [results.ratio(name, nats, sizes, results.exponential), bits]
    if not items or not all(isinstance(one, int | float) for one in items):
        return []
    values = np.array(items, float)
    if np.isin(values, (0, 1)).all():
        return [results.share(name, values == 1)]
    ones = np.ones(len(values))
    return [results.mean(name, values), results.ratio(name, -values, ones, results.exponential)]
