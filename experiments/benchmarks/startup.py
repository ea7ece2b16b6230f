"""Seconds to the first training step of `jaxlm run`, and of commands that never import jax.

    python experiments/benchmarks/startup.py [--rounds 3]

The quickstart's experiment, made small by overrides (two layers, 90 topics of Python's documentation, three steps),
through the real command line, in processes of their own that take turns: with nothing kept, with prepared data
kept, and with compiled programs kept too (JAX_COMPILATION_CACHE_DIR, and
JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0, as JAX keeps only what took a second to compile otherwise). What a
run's journal says of its first step is shown: activities of the wall time as the run booked them, and as `import`
all that was before the run's own clock: the interpreter, the one re-execution, the experiment, jax. `end` is when
the command has finished, with its evaluation, checkpoint and page. Files that Python reads are in the system's
cache after the first, uncounted round.

`jaxlm --help`, `jaxlm show` and a misspelt field must not import jax: it is tried with a jax that cannot be
imported.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workers import at_least, spread

QUICKSTART = str(Path(__file__).parents[1] / "quickstart.py")
TINY = (
    *("--model.embed", "64", "--model.layers", "2", "--model.block.mlp.width", "176"),
    *("--model.block.attention.head", "32", "--model.vocab", "512", "--tokenizer.vocab", "512"),
    *("--train.steps", "3", "--train.batch", "4", "--train.length", "128", "--data.held_out", "4000"),
    *("--where.every.evaluate", "0", "--where.every.checkpoint", "0", "--samples.prompts"),
)
"""The quickstart in seconds; two steps follow the first."""
ARMS = {"nothing kept": (), "data kept": ("data",), "data and programs kept": ("data", "programs")}
"""What is kept from one run to the next."""
ACTIVITIES = ("import", "data", "compile", "step", "other")
QUICK = {
    ("--help",): 0,
    ("show", QUICKSTART): 0,
    ("run", QUICKSTART, "--train.stepz", "3"): 2,
}
"""Words -> exit code of commands that answer without jax."""


def environment(**more: str) -> dict[str, str]:
    """This process's, without what another run keeps or has set up."""
    ours = ("JAXLM_", "GLIBC_TUNABLES", "JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE", "JAX_ENABLE_COMPILATION")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | more


def jaxlm(words: tuple[str, ...], **more: str) -> tuple[float, float, subprocess.CompletedProcess]:
    """One command: when it began (seconds since the epoch), its seconds, and what came of it."""
    start = time.time()
    command = [sys.executable, "-m", "jaxlm", *words]
    done = subprocess.run(command, env=environment(**more), capture_output=True, text=True)
    return start, time.time() - start, done


# --- the first step ----------------------------------------------------------------------------------------------


def write_text(folder: Path, topics: int = 90) -> None:
    """English prose that is on every machine: topics of Python's language reference."""
    from pydoc_data.topics import topics as texts

    folder.mkdir()
    for name in sorted(texts)[:topics]:
        (folder / f"{name}.txt").write_text(texts[name])


def parts(start: float, records: list[dict]) -> dict[str, float]:
    """Seconds to the first step by activity, and their sum `total`, of a command that began at `start`."""
    first = next(one for one in records if one.get("event") == "goodput" and one["step"] == 1)
    booked = first["seconds"]
    total = first["time"] - start
    known = {name: booked.get(name, 0.0) for name in ("data", "compile", "step")}
    other = sum(booked.values()) - sum(known.values())
    return {"import": total - sum(booked.values()), **known, "other": other, "total": total}


def train(ground: Path, index: int, keeps: tuple[str, ...]) -> dict[str, float]:
    """One run to its end: seconds to its first step by activity, to its end, and programs it had to compile."""
    from jaxlm.runs.journal import read_metrics

    run, data = ground / f"run-{index}", ground / ("data" if "data" in keeps else f"data-{index}")
    more, programs = {"JAXLM_CACHE": str(data)}, ground / "programs"
    if "programs" in keeps:
        more |= {"JAX_COMPILATION_CACHE_DIR": str(programs), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    before = kept(programs)
    source = ("data.source:text_files", "--data.source.paths", str(ground / "text/*.txt"))
    start, seconds, done = jaxlm(("run", QUICKSTART, *TINY, *source, "--run-dir", str(run)), **more)
    if done.returncode:
        raise SystemExit(f"a run ended with code {done.returncode}\n{done.stdout}{done.stderr}")
    return parts(start, read_metrics(run)) | {"end": seconds, "new programs": kept(programs) - before}


def kept(programs: Path) -> int:
    """Programs in JAX's compilation cache."""
    return len(list(programs.glob("*-cache"))) if programs.exists() else 0


def first_steps(rounds: int) -> None:
    """Prints a line for each arm. Exits when a kept program was compiled again."""
    taken: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        ground, index = Path(folder), 0
        write_text(ground / "text")
        for counted in range(-1, rounds):  # the first round fills what is kept
            for arm, keeps in ARMS.items():
                one = train(ground, index, keeps)
                index += 1
                if counted >= 0:
                    taken[arm].append(one)
                    if one["new programs"]:
                        raise SystemExit(f"{arm}: {one['new programs']} programs were not found in the cache")
                elif "programs" in keeps and not one["new programs"]:
                    raise SystemExit(f"{arm}: JAX has kept no program")
    activities = "".join(f"{name:>9}" for name in ACTIVITIES)
    print(f"{'first step, s':24}{activities}   {'total (range)':20}{'nothing kept/this':20}{'end':>5}")
    cold = [one["total"] for one in taken["nothing kept"]]
    for arm, found in taken.items():
        median = {name: statistics.median(one[name] for one in found) for name in found[0]}
        totals = [one["total"] for one in found]
        ratio = "1" if totals == cold else spread([a / b for a, b in zip(cold, totals, strict=True)])
        columns = "".join(f"{median[name]:9.2f}" for name in ACTIVITIES)
        print(f"{arm:24}{columns}   {spread(totals, 1):20}{ratio:20}{median['end']:5.1f}", flush=True)


# --- commands that answer at once ------------------------------------------------------------------------------


def answers(rounds: int) -> None:
    """Prints a line for each quick command. Exits when one imports jax or ends with another code."""
    seconds: dict[tuple[str, ...], list[float]] = {words: [] for words in QUICK}
    with tempfile.TemporaryDirectory() as folder:
        poison(Path(folder))
        paths = os.pathsep.join(one for one in (folder, os.environ.get("PYTHONPATH", "")) if one)
        for words, code in QUICK.items():
            done = jaxlm(words, PYTHONPATH=paths)[2]
            if done.returncode != code:
                raise SystemExit(f"jaxlm {' '.join(words)}: code {done.returncode}, expected {code}\n{done.stderr}")
    for _ in range(rounds):
        for words, taken in seconds.items():
            taken.append(jaxlm(words)[1])
    print(f"\n{'without jax':50}{'code':>5}   s (range)")
    for words, taken in seconds.items():
        shown = " ".join(["jaxlm", *words]).replace(QUICKSTART, "experiments/quickstart.py")
        print(f"{shown:50}{QUICK[words]:5}   {spread(taken)}", flush=True)


def poison(folder: Path) -> None:
    """A jax that cannot be imported."""
    (folder / "jax.py").write_text("raise SystemExit('jax was imported')\n")


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=at_least(1), default=3, help="counted runs of each, after one that is not")
    parser.add_argument("--only", choices=("run", "answers"), help="one of the two tables")
    options = parser.parse_args()
    if options.only != "answers":
        first_steps(options.rounds)
    if options.only != "run":
        answers(options.rounds)


if __name__ == "__main__":
    main()
