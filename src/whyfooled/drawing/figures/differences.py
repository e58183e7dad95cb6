"""Differences from a reference as heat: what a figure shows where lines would be too many to be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from whyfooled.drawing.style import TEXT_SIZE, plain_panel, wrap_text
from whyfooled.drawing.words import shortened

MOST_LINES = 8
"""How many lines a figure may have. [ours]"""

_STRONGEST = 0.55
"""How opaque the largest difference is: numbers are read on every cell, on a light and on a dark page."""


def draw_differences(
    panel: Axes,
    rows: Mapping[str, Sequence[float]],
    columns: Sequence[str],
    *,
    end: float,
    ink: str = "black",
) -> None:
    """Draw a cell for each difference, in percentage points: red where it is positive, blue where negative.

    Parameters
    ----------
    panel
        Where to draw.
    rows
        For each name, a difference of shares for each column.
    columns
        What the columns are.
    end
        The difference at the end of the colours, above 0.
    ink
        Colour of text and lines.
    """
    values = np.array(list(rows.values()))
    opacity = _STRONGEST * np.clip(np.abs(values) / end, 0, 1)
    panel.imshow(values, cmap="RdBu_r", vmin=-end, vmax=end, alpha=opacity, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        points = round(100 * value)
        panel.text(
            column, row, f"{points:+d}" if points else "0", ha="center", va="center", fontsize=TEXT_SIZE, color=ink
        )  # fmt: skip
    panel.set_yticks(range(len(rows)), [write_row_title(name) for name in rows], fontsize=TEXT_SIZE)
    panel.set_xticks(range(len(columns)), columns, fontsize=TEXT_SIZE)
    plain_panel(panel, ink)
    panel.grid(visible=False)


def write_row_title(name: str) -> str:
    """Write a row's name in two lines at most, so that its cells have room."""
    return wrap_text(shortened(name, 36), 19)
