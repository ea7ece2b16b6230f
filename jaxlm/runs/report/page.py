"""The page: its parts in order, in one file that needs nothing else."""

from __future__ import annotations

import importlib.resources
from typing import Any

from etils import epath

from jaxlm.runs.files import write_atomically
from jaxlm.runs.report import record
from jaxlm.runs.report.content import Content, read
from jaxlm.runs.report.curves import curves
from jaxlm.runs.report.samples import samples
from jaxlm.runs.report.telemetry import telemetry
from jaxlm.runs.report.text import text
from jaxlm.runs.report.verdict import header, verdict

NAME = "report.html"
# nothing is fetched and nothing runs, whatever a sample or a path contains
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def write_report(run_dir: Any) -> epath.Path:
    """Writes `report.html` from what the run directory holds, and returns its path.

    The page needs no network and no script, is under 2 MB and the same for the same run. Without the extra
    `report` it has no curves and says so. Raises UsageError if the directory is no run, Failure if a file of
    it is damaged or the page cannot be written.
    """
    content = read(run_dir)
    path = content.path / NAME
    write_atomically(path, page(content))
    return path


def page(content: Content) -> str:
    """The report as HTML."""
    parts = (
        header(content),
        verdict(content),
        curves(content),
        record.evaluations(content),
        record.tasks(content),
        samples(content),
        telemetry(content),
        record.corpus(content),
        record.config(content),
        record.attempts(content),
        record.manifest(content),
    )
    main = "\n".join(part for part in parts if part)
    return document(f"{text(content.experiment.name, 120)} · jaxlm report", main, record.footer(content))


def document(title: str, main: str, footer: str) -> str:
    """A page of these parts, in HTML, that needs no other file."""
    style = (importlib.resources.files(__package__) / "style.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{main}
</main>
{footer}
</body>
</html>
"""
