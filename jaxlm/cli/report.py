"""usage: jaxlm report RUN

Writes one page of what a run came to, RUN/report.html, and prints where it is. A run that is not finished
has a page, too. The page needs no network; its curves need matplotlib: pip install 'jaxlm[report]'.

RUN    a run directory, or its name in runs/
"""

from __future__ import annotations

from jaxlm.config.errors import UsageError
from jaxlm.runs.ledger import find_run
from jaxlm.runs.report import write_report


def main(argv: list[str]) -> int:
    """Writes the page; returns the exit code."""
    if len(argv) != 1 or argv[0].startswith("-"):
        raise UsageError(f"expected jaxlm report RUN, got {' '.join(argv) or 'no run'}")
    print(write_report(find_run(argv[0])))
    return 0
