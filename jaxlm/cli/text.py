"""Tables and numbers for people: ruled on a terminal, plain aligned text elsewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns; those that hold numbers only are set to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    right = [all(_numeric(row[i]) for row in cells) and bool(cells) for i in range(len(header))]
    if sys.stdout.isatty():
        return _ruled(header, cells, right)
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    lines = [
        "  ".join(cell.rjust(width) if side else cell.ljust(width) for cell, width, side in zip(row, widths, right))
        for row in [list(header), *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def _ruled(header: Sequence[str], cells: list[list[str]], right: list[bool]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for i, (name, side) in enumerate(zip(header, right)):
        grid.add_column(name, justify="right" if side else "left", overflow="fold", no_wrap=i == 0)
    for row in cells:
        grid.add_row(*(_escaped(cell) for cell in row))
    console = Console()
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().strip("\n").split("\n"))


def _escaped(cell: str) -> str:
    from rich.markup import escape

    colors = {"finished": "green", "running": "cyan", "stopped": "yellow", "damaged": "red"}
    colors |= {"ok": "green", "warning": "yellow", "problem": "red"}
    return f"[{colors[cell]}]{cell}[/]" if cell in colors else escape(cell)


def bold(text: str) -> str:
    """The text in bold on a terminal."""
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else text


def _numeric(cell: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?[kMGTPE%]?i?B?)|-|", cell) is not None


def count(value: float) -> str:
    """A count with three digits: 4.26M."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 999.5:
            return f"{value:.3g}{unit}" if unit else f"{value:.3g}" if value % 1 else f"{value:.0f}"
        value /= 1000
    return f"{value:.3g}E"


def size(value: float) -> str:
    """Bytes with three digits: 437 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"


def duration(seconds: float) -> str:
    """A time in its two largest units: 3 h 12 min."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d"
