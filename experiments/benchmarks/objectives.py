"""The objectives, and the architectures that take them: writes README's two tables from a run of the tests.

    python experiments/benchmarks/objectives.py           # runs the tests, about an hour on two cores, and prints
    python experiments/benchmarks/objectives.py --write   # and puts the tables into README.md

A run with a failure writes nothing.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

from tables import README, put, records

TESTS = ["objectives", "train/test_objectives.py"]
CHOSEN = (
    "every_parameter or micro_batches_agree or resumes or step_lowers or test_optimum or not_predicted or "
    "test_labels or test_pairs or elsewhere"
)


def architectures(found: list[dict[str, Any]]) -> str:
    """A row for each architecture, a column for each objective: whether a step trains every parameter."""
    taken = [(one["architecture"], one["objective"]) for one in found if "architecture" in one]
    names = list(dict.fromkeys(name for _, name in taken))
    lines = [f"| | {' | '.join(f'`{name}`' for name in names)} |\n", f"|---|{'---|' * len(names)}\n"]
    for architecture in dict.fromkeys(one for one, _ in taken):
        cells = ("x" if (architecture, name) in taken else "" for name in names)
        lines.append(f"| {architecture} | {' | '.join(cells)} |\n")
    return "".join(lines)


def objectives(found: list[dict[str, Any]]) -> str:
    """A row for each objective: what was measured of it."""
    rows: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for one in found:
        for key, value in one.items():
            if key != "objective" and "architecture" not in one:
                rows[one["objective"]][key].append(value)
    lines = [
        "| objective | loss on eight devices, of that on one | resumes | lowers for | loss reached, of the optimum "
        "| a control's |\n|---|---|---|---|---|---|\n"
    ]
    for name, row in rows.items():
        cells = (
            " ".join(f"{value:.0e} off" for value in row["meshes"]),
            " ".join(row["resumes"]),
            ", ".join(row["lowers"]),
            " ".join(f"{value:.3f}" for value in row["optimum"]),
            " ".join(f"{value:.3f}" for value in row["control"]),
        )
        lines.append(f"| `{name}` | {' | '.join(cells)} |\n")
    return "".join(lines)


def main() -> None:
    """Runs the tests; prints or writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    options = parser.parse_args()
    found = records(TESTS, "-k", CHOSEN)
    blocks = {"architectures": architectures(found), "objectives": objectives(found)}
    if options.write:
        text = README.read_text()
        for name, block in blocks.items():
            text = put(text, name, block)
        README.write_text(text)
    print(*blocks.values(), sep="\n")


if __name__ == "__main__":
    main()
