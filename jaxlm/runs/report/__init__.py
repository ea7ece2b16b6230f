"""The report of a run: one HTML file that stands alone, from what the run directory holds."""

from jaxlm.runs.report.page import write_report
