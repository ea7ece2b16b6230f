"""Eight CPU devices in every test, no silent broadcasting between ranks, and every array's shape checked."""

import gc
import os
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

# Test programs are tiny: compiling them well takes seconds each, compiling them simply a fraction of that.
os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {os.environ.get('XLA_FLAGS', '')}"

import jax
import pytest
from jaxtyping import install_import_hook

from tests.nightly import FAMILIES, PATTERNS

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)

ROOMS = ("parallel", "layers", "models", "objectives", "adapters", "quantize", "sampling", "distill", "evaluate")
install_import_hook([f"jaxlm.{room}" for room in ROOMS], "shapes.check")


def pytest_terminal_summary(terminalreporter):
    """Minutes of each room, over all processes, and what was skipped by name."""
    minutes, skipped = Counter(), Counter()
    for status, reports in terminalreporter.stats.items():
        for report in reports:
            if hasattr(report, "duration"):
                minutes[Path(report.nodeid).parts[1]] += report.duration / 60
            if status == "skipped":
                skipped[report.longrepr[2]] += 1
    parts = ", ".join(f"{room} {spent:.1f}" for room, spent in minutes.most_common())
    terminalreporter.write_line(f"minutes by part, over all processes: {parts}")
    for reason, count in skipped.items():
        terminalreporter.write_line(f"skipped {count}: {reason}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks what `tests/nightly.py` names."""
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        compared = "interop/test_families.py::test_" in name and "[" in name
        often = any(name.endswith(f"[{one}]") for one in FAMILIES)
        if any(fnmatch(name, one) for one in PATTERNS) or (compared and not often):
            item.add_marker(pytest.mark.nightly)


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Compiled programs map memory, of which a process may have 65,530 pieces: beyond, the compiler crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 25_000:
        jax.clear_caches()
        gc.collect()
