"""Histograms of values from 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from whyfooled.drawing.style import COLOURS

Histograms = Mapping[str, Mapping[str, tuple[np.ndarray, float | None]]]
"""For each row, for each of its panels, values from 0 to 1 and a value to mark."""


def histograms_figure(rows: Histograms, *, y: str, marked: str) -> Figure:
    """Draw histograms of values from 0 to 1, one row of panels for each entry.

    Parameters
    ----------
    rows
        For each row's title, the panels.
    y
        What is counted.
    marked
        What the marked values are.
    """
    headings = list(next(iter(rows.values())))
    figure = Figure(figsize=(4.2 * len(headings), 1.9 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), len(headings), sharex=True, squeeze=False)
    for line, (title, panels) in zip(axes, rows.items(), strict=True):
        for number, (panel, (heading, (values, mark))) in enumerate(zip(line, panels.items(), strict=True)):
            panel.hist(values, bins=40, range=(0, 1), color=COLOURS[number])
            if mark is not None:
                panel.axvline(mark, color="black", linestyle=":", label=marked)
                panel.legend(frameon=False, fontsize=8)
            panel.set_title(f"{title}: {heading}", fontsize=9)
            panel.set_xlim(0, 1)
        line[0].set_ylabel(y)
    return figure
