"""Checkpoints that are whole, and known to be right when they are read again.

A step is one directory that appears at once: `state` (all arrays) and `meta` (their names, dtypes, shapes and
fingerprints, the data's position, the metric). Orbax writes and reads the arrays but does not check them: a
flipped bit on the disk would come back as a parameter. So every restore is compared with the fingerprints,
and a step that fails is named and set aside, and the one before is tried.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import logging
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from jaxlm.config.errors import Failure
from jaxlm.layers.names import differences, flatten, from_nested, listed, to_nested
from jaxlm.runs.digest import digest, part
from jaxlm.train.fingerprint import fingerprint

log = logging.getLogger(__name__)
# Orbax tells at each step, as warnings, of things that are as intended here, and shows an exception in every
# thread that it passes through; it reaches us, who say it in one sentence. Its other errors still show.
logging.getLogger("absl").addFilter(
    lambda record: (
        f"{os.sep}orbax{os.sep}" not in record.pathname or (record.levelno >= logging.ERROR and not record.exc_info)
    )
)

PARTS = {"parameters": "model", "student": "model.model", "ema": "ema"}
"""What `restore(only=...)` can take, and where the state holds it; a student's model is in its `Student`."""


class Checkpoints:
    """The checkpoints of one directory: the last `keep`, and the one of the lowest `best` metric.

    One writer for each directory. `read_only` is for the directory of another run: nothing there is created,
    cleaned up or moved. `config` is a hash that goes into each step: a step of another experiment is refused.
    Raises `Failure` when the directory cannot be made.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        keep: int = 2,
        best: str = "bits_per_byte",
        config: str = "",
        read_only: bool = False,
    ):
        path = os.fspath(directory)
        self.directory = epath.Path(path if "://" in path else os.path.abspath(path))
        self.damaged: list[str] = []
        """A sentence for each step that the last restore found damaged."""
        self._best, self._config, self._read_only = best, config, read_only
        self._policy = _LastAndBest(keep)
        _forget_second_errors()
        try:
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=self._policy,
                    cleanup_tmp_directories=not read_only,
                    create=not read_only,
                    read_only=read_only,
                ),
            )
        except OSError as error:
            raise Failure(f"cannot keep checkpoints in {self.directory}: {error}") from error
        for step in self.steps():
            self._policy.scores[step] = self._score_on_disk(step)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close()

    def steps(self) -> list[int]:
        """Saved steps, oldest first; the last may still be on its way to the disk."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step of the lowest metric; None when no step has one."""
        return self._policy.best(self.steps())

    # --- writing -------------------------------------------------------------------------------------------

    def save(self, step: int, state: Any, data: dict, metrics: dict[str, float] | None = None) -> bool:
        """Begins to save, and returns when the state's buffers may be donated; False if the step is there.

        `data` is what the data needs to go on, in JSON's types. Waits for the save before. Raises `Failure`
        if that or this one cannot be written; whatever was complete before is untouched.
        """
        self.wait()
        if step in self.steps():
            return False
        arrays = _plain(state)
        score = (metrics or {}).get(self._best)
        meta = {
            "arrays": _describe(arrays),
            "fingerprint": fingerprint(arrays),
            "data": data,
            "metric": float(score) if score is not None and math.isfinite(score) else None,
            "config": self._config,
        }
        meta = json.loads(json.dumps(meta))  # as it will be read
        self._policy.scores[step] = meta["metric"]
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(arrays), meta=ocp.args.JsonSave(meta | {"check": _checksum(meta)})
        )
        try:
            self._manager.save(step, args=items, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            self._give_up(error)
        return True

    def wait(self) -> None:
        """Returns when everything is on the disk. Raises `Failure` if it cannot be written."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except (OSError, ValueError, RuntimeError) as error:
            self._give_up(error)

    def close(self) -> None:
        """Waits, then ends the threads that write."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _give_up(self, error: Exception) -> None:
        if jax.process_index() == 0 and not self._read_only:
            self._remove_half_written()
        self._manager.reload()
        last = f"step {self.steps()[-1]} is the last complete one" if self.steps() else "there is none yet"
        raise Failure(
            f"cannot save a checkpoint in {self.directory}: {_reason(error)}; {last}, and it is untouched. "
            "Free some space or name another directory, and run again"
        ) from error

    def _remove_half_written(self) -> None:
        """A half-written step would keep a full disk full; what cannot be removed is, by the next attempt."""
        for path in self.directory.iterdir():
            # Other threads may still be writing there, and make it again.
            for _ in range(100 if ocp.utils.is_tmp_checkpoint(path) else 0):
                with contextlib.suppress(OSError):
                    path.rmtree(missing_ok=True)
                time.sleep(0.1)
                if not path.exists():
                    break

    # --- reading -------------------------------------------------------------------------------------------

    def restore(
        self, template: Any, only: Literal["parameters", "student", "ema"] | None = None
    ) -> tuple[int, Any, dict] | None:
        """(step, state, data) of the newest step that is whole and right; None when nothing was ever saved.

        `template` is the state with `jax.ShapeDtypeStruct`s for leaves, their shardings on any mesh (without:
        one device); with `only`, it is that part alone, and its dtypes may differ from the saved. Damaged
        steps newer than the one returned go to `damaged/` and into `self.damaged`. Raises `Failure` when
        there are steps but none is good, or when they hold another model or belong to another experiment.
        """
        self.wait()
        self.damaged, bad = [], []
        for step in reversed(self.steps()):
            try:
                state, meta = self._read(step, template, only)
                problem = None
            except _Damage as damage:
                problem = str(damage)
                _drop_traces(damage)
            if _all_hosts(problem is None):
                self._set_aside(bad)
                return step, state, meta["data"]
            bad.append(step)
            self.damaged.append(f"step {step} is damaged: {problem or 'another host cannot read it'}")
            log.warning("%s/%s", self.directory, self.damaged[-1])
        if bad:
            raise Failure(f"no checkpoint in {self.directory} can be used:\n" + listed(self.damaged))
        return None

    def digest(self, step: int, only: Literal["parameters", "ema"]) -> str:
        """The digest of a part of a step that `restore` returned, in the dtypes it was saved with."""
        return digest(part(self._meta(step)["fingerprint"], PARTS[only]))

    def _read(self, step: int, template: Any, only: str | None) -> tuple[Any, dict]:
        meta = self._meta(step)
        if self._config and not only and meta["config"] != self._config:
            raise Failure(
                f"{self.directory}/{step} belongs to another experiment (hash {meta['config']}, "
                f"not {self._config}): name another run directory"
            )
        wanted = _plain({PARTS[only]: template} if only else template)
        begin = f"{PARTS[only]}." if only else ""
        saved = {name: kind for name, kind in meta["arrays"].items() if name.startswith(begin)}
        self._must_fit(step, _describe(wanted), saved, dtypes=only is None)

        abstract = to_nested(_abstract(wanted, saved))
        arguments = ocp.args.PyTreeRestore(
            abstract, ocp.checkpoint_utils.construct_restore_args(abstract), partial_restore=True
        )
        with _reading("state"):
            nested = self._manager.restore(step, args=ocp.args.Composite(state=arguments))["state"]
        absent = [name for name, leaf in flatten(nested).items() if not isinstance(leaf, jax.Array)]
        if absent:
            raise _Damage("these arrays are missing: " + ", ".join(absent[:10]))
        found = fingerprint(nested)
        wrong = [name for name in saved if found[name] != meta["fingerprint"][name]]
        if wrong:
            raise _Damage("these arrays are not what was saved: " + ", ".join(wrong[:10]))
        leaves = {name.removeprefix(begin): leaf for name, leaf in flatten(nested).items()}
        return from_nested(
            template, {name: _as_in(leaf, leaves[name]) for name, leaf in flatten(template).items()}
        ), meta

    def _meta(self, step: int) -> dict:
        with _reading("meta"):
            meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
            if meta.pop("check") != _checksum(meta):
                raise _Damage("meta is not what was saved")
        return meta

    def _must_fit(self, step: int, wanted: dict, saved: dict, dtypes: bool) -> None:
        def shown(kinds: dict) -> dict[str, str]:
            return {name: f"{dtype if dtypes else ''}{shape}" for name, (dtype, shape) in kinds.items()}

        problems = differences(shown(wanted), shown(saved))
        if problems:
            raise Failure(f"{self.directory}/{step} holds another model:\n" + listed(problems))

    def _score_on_disk(self, step: int) -> float | None:
        """A step's metric; None where its meta is damaged: `restore` says so when its turn comes."""
        try:
            return self._meta(step)["metric"]
        except _Damage as damage:
            _drop_traces(damage)
            return None

    def _set_aside(self, steps: list[int]) -> None:
        """Moves steps to `damaged/`: only once another could be read, so that the steps are to blame."""
        if self._read_only or not steps:
            return
        if jax.process_index() == 0:
            folder = self.directory / "damaged"
            folder.mkdir(exist_ok=True)
            for step in steps:
                taken = sum(1 for path in folder.iterdir() if path.name.partition("-")[0] == str(step))
                (self.directory / str(step)).rename(folder / (f"{step}-{taken}" if taken else str(step)))
        _all_hosts(True)
        self._manager.reload()


class _Damage(Exception):
    """What was read is not what was saved."""


@dataclass(frozen=True)
class _LastAndBest:
    """Orbax's preservation policy: the last `keep` steps and the one of the lowest score.

    Orbax's own BestN forgets scores between processes unless it also writes them to a file of their own, and
    cannot open a directory in which one such file is damaged.
    """

    keep: int
    scores: dict[int, float | None] = field(default_factory=dict)

    def best(self, steps: list[int]) -> int | None:
        scored = [step for step in steps if self.scores.get(step) is not None]
        return min(scored, key=lambda step: (self.scores[step], step), default=None)

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-self.keep :], self.best(steps)}
        return [step in kept for step in steps]


def _plain(tree: Any) -> dict[str, Any]:
    """Nested plain dicts, PRNG keys as their words: what is written."""
    return to_nested(jax.tree.map(_as_words, tree))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_words(leaf: Any) -> Any:
    if not _is_key(leaf):
        return leaf
    if isinstance(leaf, jax.Array):
        return jax.random.key_data(leaf)
    words = jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct(words.shape, words.dtype, sharding=leaf.sharding)


def _as_in(template: Any, leaf: jax.Array) -> jax.Array:
    """The leaf as the template has it: a key from its words, another dtype where that is allowed."""
    if _is_key(template):
        return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(jnp.empty((), template.dtype)))
    return leaf.astype(template.dtype)


def _describe(arrays: Any) -> dict[str, list]:
    """[dtype, shape] of each array by name."""
    return {name: [str(leaf.dtype), list(leaf.shape)] for name, leaf in flatten(arrays).items()}


def _abstract(wanted: Any, saved: dict[str, list]) -> dict[str, jax.ShapeDtypeStruct]:
    """What to read: shapes and dtypes as they were saved, where the template wants them."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, saved[name][0], sharding=getattr(leaf, "sharding", None) or here)
        for name, leaf in flatten(wanted).items()
    }


def _checksum(meta: dict) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Whatever goes wrong within is damage: it can show as any error of any layer below."""
    try:
        yield
    except _Damage:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            raise
        raise _Damage(f"{what} cannot be read: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """What went wrong at the bottom, in one line: the array if one is named, and the first 300 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = (str(error).strip().splitlines() or [""])[0].partition(" [tensorstore_spec")[0]
    array = re.search(r'"([^"/]+)/[^"/]*" in OCDBT', text)
    return f"{array[1] + ': ' if array else ''}{type(error).__name__}: {text[:300]}"


def _drop_traces(error: BaseException) -> None:
    """Frees what a failed read left: Python would print pages about it at some later time."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    report, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = report


def _forget_second_errors() -> None:
    """Writes that fail after the first find that nobody waits for them: Python would print pages about each."""
    report = sys.unraisablehook
    if getattr(report, "forgets_second_errors", False):
        return

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    logging.getLogger("asyncio").addFilter(
        lambda record: "exception was never retrieved" not in record.getMessage()
    )
    warnings.filterwarnings("ignore", "coroutine 'async_serialize.* was never awaited", RuntimeWarning)
    hook.forgets_second_errors = True
    sys.unraisablehook = hook


def _all_hosts(fine: bool) -> bool:
    """Whether all processes say so: they must return to the same step."""
    if jax.process_count() == 1:
        return fine
    return bool(multihost_utils.process_allgather(np.asarray(fine)).all())
