"""Matrices of numbers, each cell with its number in it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from whyfooled.drawing.style import plain_text
from whyfooled.tensors.statistics import Interval

Matrix = Mapping[str, Mapping[str, Interval]]
"""For each row, for each column, a mean with its interval."""


def matrices_figure(panels: Sequence[tuple[str, Matrix, str]], *, rows: str, columns: str) -> Figure:
    """Draw matrices side by side, darker where a number is larger, with mean and interval in each cell.

    Parameters
    ----------
    panels
        For each, its title, its cells, and how a number is written, such as ``".2f"``.
    rows, columns
        What the rows and columns are.
    """
    first = panels[0][1]
    down, across = list(first), list(next(iter(first.values())))
    figure = Figure(figsize=(1.15 * len(across) * len(panels) + 1.8, 0.75 * len(down) + 1.9), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, (heading, cells, form) in zip(axes, panels, strict=True):
        values = np.array([[cells[row][column].mean for column in across] for row in down])
        known = values[~np.isnan(values)]
        low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
        # Some room at the dark end, so that black text is read everywhere.
        panel.imshow(values, cmap="Blues", vmin=low - 0.1 * (high - low), vmax=high + 0.7 * (high - low) + 1e-9)
        for y, row in enumerate(down):
            for x, column in enumerate(across):
                panel.text(x, y, _written(cells[row][column], form), ha="center", va="center", fontsize=8)
        panel.set_title(heading, fontsize=10)
        panel.set_xticks(range(len(across)), [_short(one) for one in across], fontsize=8)
        panel.set_yticks(range(len(down)), [_short(one) for one in down], fontsize=8)
        panel.set_xlabel(columns, fontsize=9)
        panel.set_aspect("auto")
    axes[0].set_ylabel(rows, fontsize=9)
    return figure


def _short(name: str) -> str:
    # Of a path, the file.
    return plain_text(textwrap.fill(name.rpartition("/")[2], 16))


def _written(value: Interval, form: str) -> str:
    if not value.count:
        return "–"
    if value.count == 1:
        return f"{value.mean:{form}}"
    return f"{value.mean:{form}}\n[{value.low:{form}}, {value.high:{form}}]"
