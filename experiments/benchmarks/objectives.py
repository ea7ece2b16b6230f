"""The objectives, and the architectures that take them: tables from runs of the tests.

    python experiments/benchmarks/objectives.py                   # all three, about an hour and a half on two cores
    python experiments/benchmarks/objectives.py --write meshes    # of architectures, meshes, optima

Architectures and meshes have a place in README.md, optima are printed only. A run with a failure writes nothing.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

from tables import README, put, records

Records = list[dict[str, Any]]


def architectures(found: Records) -> str:
    """A row for each architecture, a column for each objective: whether a step trains every parameter."""
    taken = [(one["architecture"], one["objective"]) for one in found]
    names = list(dict.fromkeys(name for _, name in taken))
    lines = [f"| | {' | '.join(f'`{name}`' for name in names)} |\n", f"|---|{'---|' * len(names)}\n"]
    for architecture in dict.fromkeys(one for one, _ in taken):
        cells = ("x" if (architecture, name) in taken else "" for name in names)
        lines.append(f"| {architecture} | {' | '.join(cells)} |\n")
    return "".join(lines)


def meshes(found: Records) -> str:
    """A row for each objective: eight devices beside one, two runs beside one, and what its step lowers for."""
    rows = by_objective(found)
    lines = ["| objective | losses of eight devices beside one | resumed | lowers for |\n|---|---|---|---|\n"]
    for name, row in rows.items():
        off = " ".join(f"{value:.0e} off" for value in row["meshes"])
        lines.append(f"| `{name}` | {off} | {' '.join(row['resumes'])} | {', '.join(row['lowers'])} |\n")
    return "".join(lines)


def optima(found: Records) -> str:
    """A row for each objective with a known optimum: the loss reached, and a control's, as parts of it."""
    lines = ["| objective | loss reached / optimum | the control's |\n|---|---|---|\n"]
    for name, row in by_objective(found).items():
        reached, control = (", ".join(f"{value:.3f}" for value in row[key]) for key in ("optimum", "control"))
        lines.append(f"| `{name}` | {reached} | {control} |\n")
    return "".join(lines)


def by_objective(found: Records) -> dict[str, dict[str, list[Any]]]:
    """What was recorded of each, by its name."""
    rows: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for one in found:
        for key, value in one.items():
            if key != "objective":
                rows[one["objective"]][key].append(value)
    return rows


PARTS = {
    "architectures": (architectures, ["objectives/test_architectures.py"], "every_parameter"),
    "meshes": (meshes, ["train/test_objectives.py"], "micro_batches_agree or resumes or step_lowers"),
    "optima": (
        optima,
        ["objectives"],
        "test_optimum or not_predicted or test_labels or test_pairs or elsewhere or small_model",
    ),
}
"""Table -> (how it is written, its tests, those of them that it takes)."""


def main() -> None:
    """Runs the tests of the tables that are asked for; prints or writes these."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    parser.add_argument("parts", nargs="*", metavar="TABLE", help=f"of {', '.join(PARTS)}")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for part in options.parts or PARTS:
        table, tests, chosen = PARTS[part]
        block = table(records(tests, "-k", chosen))
        if options.write and part != "optima":
            README.write_text(put(README.read_text(), part, block))
        print(block)


if __name__ == "__main__":
    main()
