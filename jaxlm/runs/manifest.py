"""What an attempt ran on: code, packages, machine, flags. Secrets are left out by their names."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jaxlm
from jaxlm.config.codec import to_json, what_hash, whole_hash
from jaxlm.config.experiment import Experiment

DIFF_BYTES = 262_144
"""Longest text of uncommitted changes that is kept; its hash covers all of it."""
FLAGS = re.compile(
    r"(JAX|XLA|TPU|NCCL|JAXLM)_.*|LIBTPU_INIT_ARGS|GLIBC_TUNABLES|CUDA_VISIBLE_DEVICES|OMP_NUM_THREADS|"
    r"LD_PRELOAD|SLURM_JOB_ID|SLURM_NTASKS|SLURM_RESTART_COUNT"
)
SECRET = r"(?:[A-Za-z0-9_.\-]*[_.\-])?(?:key|token|secret|password|passwd|credentials?|auth)"
HIDDEN = "<redacted>"


def manifest(experiment: Experiment, **slots: Any) -> dict[str, Any]:
    """The record of an attempt; `slots` fill or add to what only the training program knows.

    These are `data` and `tokenizer` (fingerprints), `devices`, `mesh` and `lowered_step` (a hash).
    """
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "name": experiment.name,
        "what": what_hash(experiment),
        "whole": whole_hash(experiment),
        "where": to_json(experiment)["where"],
        "argv": redact_argv(sys.argv),
        "directory": os.getcwd(),
        "host": platform.node(),
        "process": os.getpid(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "flags": flags(dict(os.environ)),
        "git": _repositories(),
        "packages": packages(),
        **dict.fromkeys(("data", "tokenizer", "devices", "mesh", "lowered_step")),
        **slots,
    }


def flags(environment: dict[str, str]) -> dict[str, str]:
    """The variables that change what is computed or how fast."""
    kept = {name: value for name, value in sorted(environment.items()) if FLAGS.fullmatch(name)}
    return {name: HIDDEN if _secret(name) else redact(value) for name, value in kept.items()}


def _secret(name: str) -> bool:
    return re.fullmatch(SECRET, name.lstrip("-"), re.IGNORECASE) is not None


def redact(text: str) -> str:
    """The text without the values of names that end like a secret's and without passwords in URLs."""
    quoted = rf"""(?i)(\b{SECRET}["']?\s*[=:]\s*)("[^"\n]*"|'[^'\n]*'|[^\s,;"']+)"""
    return re.sub(r"(://[^/\s:@]+:)[^/\s@]+@", rf"\1{HIDDEN}@", re.sub(quoted, rf"\1{HIDDEN}", text))


def redact_argv(argv: list[str]) -> list[str]:
    """A command line without the values of secret options."""
    before = ["", *argv]
    pairs = zip(before, argv)
    return [HIDDEN if last.startswith("--") and _secret(last) else redact(word) for last, word in pairs]


def packages() -> dict[str, str]:
    """Version of every installed distribution."""
    found = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
    return dict(sorted((name, version) for name, version in found.items() if name))


def _repositories() -> dict[str, Any]:
    """State of the repository of the current directory, and of jaxlm's if that is another."""
    here, package = git(Path.cwd()), git(Path(jaxlm.__file__).parent)
    return {"directory": here} | ({} if package == here else {"jaxlm": package})


def git(directory: Path) -> dict[str, Any] | None:
    """Commit and uncommitted changes of the repository around a directory; None if there is none."""

    def ask(*words: str) -> str:
        command = ["git", "-C", str(directory), *words]
        return subprocess.run(command, capture_output=True, check=True, timeout=20).stdout.decode(
            errors="replace"
        )

    try:
        commit = ask("rev-parse", "HEAD").strip()
        diff = ask("diff", "HEAD", "--no-color", "--no-ext-diff")
        untracked = ask("ls-files", "--others", "--exclude-standard", "--full-name", ":/").splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    text = redact(diff)
    return {
        "commit": commit,
        "dirty": bool(diff),
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest() if diff else None,
        "diff": text
        if len(text) <= DIFF_BYTES
        else text[:DIFF_BYTES] + f"\n... {len(text)} characters in all\n",
        "untracked": untracked[:100],
    }
