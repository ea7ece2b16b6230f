"""Telemetry: for every tapped quantity a strip of heat, layers down and steps across."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from jaxtyping import Float, UInt8

from jaxlm.runs.report.content import Content, Record
from jaxlm.runs.report.text import fitting, number, plural, short, text

BYTES = 400_000
"""Most HTML that strips may take."""
COLUMNS, LAYERS, NAMES = 120, 64, 16
"""Most steps and layers of a strip, and most strips of a kind."""
KINDS = {
    "tap": "Activations",
    "gradient": "Gradients",
    "update": "Updates relative to their parameters",
    "parameter": "Parameters",
}
RAMP = (
    (18, 24, 48),
    (31, 64, 110),
    (38, 112, 142),
    (70, 158, 150),
    (148, 196, 142),
    (224, 222, 150),
    (252, 244, 205),
)
"""Dark is small; lightness rises evenly."""
BAD = len(RAMP) * 32 + 1

Grid = Float[np.ndarray, "layer step"]


def telemetry(content: Content) -> str:
    """The section; empty if nothing was recorded."""
    if not content.telemetry:
        return ""
    chosen = _thinned(content.telemetry)
    grids = _grids(chosen)
    budget, parts = BYTES, []
    for kind, title in KINDS.items():
        names = sorted((one for one in grids if one.startswith(f"{kind}.")), key=lambda one: -len(grids[one]))
        drawn = (_row(name.removeprefix(f"{kind}."), _relative(name, grids)) for name in names[:NAMES])
        rows = fitting(drawn, budget)
        budget -= sum(len(row.encode()) for row in rows)
        if rows:
            left = len(names) - len(rows)
            more = f'<p class="small">{plural(left, "more name")} in the journal.</p>' if left else ""
            parts.append(f'<h3>{title}</h3><table class="strips"><tbody>{"".join(rows)}</tbody></table>{more}')
    if not parts:
        return ""
    first, last = chosen[0]["step"], chosen[-1]["step"]
    return (
        '<section class="telemetry"><h2>Telemetry</h2><p class="small">Root mean squares from step '
        f"{first:,} at the left to {last:,} at the right, first layer on top; each strip from its least "
        f'<i class="ramp"></i> to its greatest on a logarithmic scale, red where a value is not '
        "finite. Beside it the range and the last value, a geometric mean over layers.</p>"
        f"{''.join(parts)}</section>"
    )


def _thinned(records: list[Record]) -> list[Record]:
    places = np.unique(np.linspace(0, len(records) - 1, min(COLUMNS, len(records))).round().astype(int))
    return [records[i] for i in places]


def _grids(records: list[Record]) -> dict[str, Grid]:
    """Values by name: NaN where there is none, infinite where it was not finite."""
    names = [
        name for name in dict.fromkeys(key for one in records for key in one) if name.partition(".")[0] in KINDS
    ]
    grids = {}
    for name in names:
        columns = [value if isinstance(value := one.get(name), list) else [value] for one in records]
        grid = np.full((min(max(map(len, columns)), LAYERS), len(records)), np.nan)
        for i, column in enumerate(columns):
            for j, value in enumerate(column[:LAYERS]):
                found = number(value)
                grid[j, i] = found if found is not None else np.nan if value is None else np.inf
        if np.isfinite(grid).any() or np.isinf(grid).any():
            grids[name] = grid
    return grids


def _relative(name: str, grids: dict[str, Grid]) -> Grid:
    """Updates over their parameters, which have one size for all learning rates; others as they are."""
    parameter = grids.get(name.replace("update.", "parameter.", 1))
    if not name.startswith("update.") or parameter is None or parameter.shape != grids[name].shape:
        return grids[name]
    with np.errstate(all="ignore"):
        ratio = grids[name] / parameter
    return np.where(np.isinf(grids[name]), np.inf, np.where(parameter > 0, ratio, np.nan))


def _row(name: str, grid: Grid) -> str:
    finite = grid[np.isfinite(grid)]
    low, high = (finite.min(), finite.max()) if finite.size else (None, None)
    last = grid[:, -1][np.isfinite(grid[:, -1])]
    now = short(float(np.exp(np.log(last).mean())), 3) if last.size and (last > 0).all() else "–"
    layers = plural(len(grid), "layer") if len(grid) > 1 else ""
    height = max(10, min(4 * len(grid), 96))
    image = base64.b64encode(png(_levels(grid))).decode()
    return (
        f'<tr><th scope="row">{text(name, 80)} <small>{layers}</small></th>'
        f'<td class="strip"><img alt="" style="height:{height}px" src="data:image/png;base64,{image}"></td>'
        f"<td>{short(low, 3)} – {short(high, 3)}</td><td>{now}</td></tr>"
    )


def _levels(grid: Grid) -> UInt8[np.ndarray, "layer step"]:
    """Places on the ramp, 0 where there is no value."""
    top = len(RAMP) * 32
    positive = np.isfinite(grid) & (grid > 0)
    logs = np.log(np.where(positive, grid, 1.0))
    low, high = (logs[positive].min(), logs[positive].max()) if positive.any() else (0.0, 0.0)
    spread = high - low
    place = 1 + (logs - low) / spread * (top - 1) if spread > 1e-9 else np.full(grid.shape, top / 2)
    place = np.where(positive, place, np.where(np.isnan(grid), 0, np.where(np.isinf(grid), BAD, 1)))
    return place.astype(np.uint8)


def _palette() -> UInt8[np.ndarray, "color 4"]:
    at = np.linspace(0, len(RAMP) - 1, len(RAMP) * 32)
    ramp = np.stack([np.interp(at, range(len(RAMP)), channel) for channel in zip(*RAMP)], 1)
    opaque = np.concatenate([ramp, np.full((len(ramp), 1), 255)], 1)
    return np.concatenate([[[0, 0, 0, 0]], opaque, [[214, 40, 40, 255]]]).astype(np.uint8)


def png(levels: UInt8[np.ndarray, "row column"]) -> bytes:
    """An image of palette entries in the PNG format (ISO/IEC 15948)."""
    height, width = levels.shape
    palette = _palette()
    lines = np.concatenate([np.zeros((height, 1), np.uint8), levels], 1)  # each line unfiltered
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", palette[:, :3].tobytes()),
        (b"tRNS", palette[:, 3].tobytes()),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
