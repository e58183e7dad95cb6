"""Means with their intervals, as marks on lines."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whyfooled.drawing.style import COLOURS, plain_text
from whyfooled.tensors.statistics import Interval

Intervals = Mapping[str, Mapping[str, Mapping[str, Interval]]]
"""For each panel, for each line, for each mark on it, a mean with its interval."""


def intervals_figure(panels: Intervals, *, x: str, shared: bool = False, line: float | None = None) -> Figure:
    """Draw means with their intervals as marks on a line for each name, a panel for each entry.

    Parameters
    ----------
    panels
        For each title, the lines and their marks.
    x
        What the marks measure.
    shared
        Whether all panels have one axis, which begins at 0 or below.
    line
        Where to draw a line that numbers are compared with, if anywhere.
    """
    names = list(next(iter(panels.values())))
    marks = list(dict.fromkeys(mark for lines in panels.values() for line in lines.values() for mark in line))
    columns = 2 if len(panels) > 1 else 1
    rows = -(-len(panels) // columns)
    height = (0.2 + 0.09 * len(marks)) * len(names) + 0.9
    figure = Figure(figsize=(4.0 * columns + 2.2, height * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=shared, sharey=True, squeeze=False).flatten()
    step = 0.8 / len(marks)
    for panel, (title, lines) in zip(axes, panels.items(), strict=False):
        for place, name in enumerate(names):
            for number, mark in enumerate(marks):
                shift = step * (number - (len(marks) - 1) / 2)
                interval_mark(
                    panel,
                    place + shift,
                    lines[name][mark],
                    COLOURS[number % len(COLOURS)],
                    mark if place == 0 else None,
                )
        panel.set_title(title, fontsize=10)
        panel.set_yticks(range(len(names)), [plain_text(name) for name in names], fontsize=8)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.grid(axis="x", alpha=0.25)
    if shared:
        axes[0].set_xlim(left=min(0.0, axes[0].get_xlim()[0]))
    for spare in axes[len(panels) :]:
        spare.set_visible(False)
    for panel in axes[max(0, len(panels) - columns) : len(panels)]:
        panel.set_xlabel(x, fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        list(map(plain_text, labels)),
        loc="outside lower center",
        ncols=max(
            1, min(4, len(handles), int(figure.get_figwidth() / (_EM * max(map(len, labels), default=1) + _SIGN)))
        ),
        frameon=False,
        fontsize=8,
    )
    for panel in axes[: len(panels)] if line is not None else ():
        panel.axvline(line, color="black", linestyle=":", linewidth=1)
    return figure


_EM, _SIGN = 0.08, 0.6
"""Inches that a letter of a legend takes, and the mark before it with the gap behind: long names have fewer columns."""


def interval_mark(panel: Axes, place: float, value: Interval, colour: str, label: str | None) -> None:
    """Draw a mean with its interval on a line of a panel."""
    panel.errorbar(
        value.mean,
        place,
        xerr=[[value.mean - value.low], [value.high - value.mean]],
        fmt="o",
        markersize=3.5,
        linewidth=1.2,
        color=colour,
        label=label,
    )
