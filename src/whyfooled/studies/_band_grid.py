"""Curves with bands in a grid of panels, a row for each thing that was looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from whyfooled.report.drawing import plain_text
from whyfooled.studies._bands import band_panel
from whyfooled.studies._figure import Curves


def bands_grid(
    rows: Mapping[str, Mapping[str, Curves]], *, x: str, y: str, references: Sequence[str] = (), free: str = ""
) -> Figure:
    """Draw curves with bands over a logarithmic axis; all but the free panels show values from 0 to 1.

    Parameters
    ----------
    rows
        For each row's title, for each of its panels, the curves; a panel without any stays empty.
    x, y
        What the axes show.
    references
        Names of curves that others are held against, drawn in black and grey.
    free
        The heading of the panels that have an axis of their own.
    """
    headings = list(next(iter(rows.values())))
    names = list(dict.fromkeys(name for row in rows.values() for curves in row.values() for name in curves))
    figure = Figure(figsize=(3.1 * len(headings) + 1.9, 2.8 * len(rows) + 0.3), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (title, row) in zip(parts, rows.items(), strict=True):
        part.suptitle(title, fontsize=10, x=0.01, ha="left", parse_math=False)
        axes = part.subplots(1, len(headings), squeeze=False)[0]
        for panel, (heading, curves) in zip(axes, row.items(), strict=True):
            panel.set_title(plain_text(heading), fontsize=9)
            band_panel(panel, curves, names, [name for name in references if name in names], {})
            panel.set_xlabel(x, fontsize=9)
            if heading != free:
                panel.set_ylim(-0.03, 1.03)
        axes[0].set_ylabel(y, fontsize=9)
        handles, labels = axes[0].get_legend_handles_labels()
        part.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    return figure
