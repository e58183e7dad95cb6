"""Stacked bars of shares with their intervals, beside other numbers of the same entries."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whyfooled.drawing.figures.intervals import Intervals, interval_mark
from whyfooled.drawing.style import COLOURS, plain_text
from whyfooled.tensors.statistics import Interval

Bars = Mapping[str, Mapping[str, Interval]]
"""For each entry, by name, where a share ends in its bar: the sum of the shares up to it."""


def bars_figure(bars: Bars, panels: Intervals, *, title: str, colours: Mapping[str, str]) -> Figure:
    """Draw a stacked bar for each entry and, in panels to its right, other numbers of the same entries.

    Parameters
    ----------
    bars
        The shares of each entry, cumulated. An interval is that of the sum of the shares to its left.
    panels
        For each title, for each entry, its numbers by name.
    title
        What the bars show.
    colours
        The colour of each share.
    """
    entries = list(bars)
    width = 1 + len(panels)
    figure = Figure(figsize=(3.6 * width + 1.6, 0.62 * len(entries) + 1.5), layout="constrained")
    first, *others = figure.subplots(1, width, sharey=True, squeeze=False)[0]
    for place, entry in enumerate(entries):
        _bar(first, place, bars[entry], colours, labelled=place == 0)
    first.set_xlim(0, 1)
    _finish(first, title)
    first.set_yticks(range(len(entries)), [plain_text(entry) for entry in entries], fontsize=8)
    first.set_ylim(len(entries) - 0.5, -0.5)
    for panel, (heading, lines) in zip(others, panels.items(), strict=True):
        marks = list(dict.fromkeys(mark for line in lines.values() for mark in line))
        for place, entry in enumerate(entries):
            for number, mark in enumerate(marks):
                shift = 0.5 * (number - (len(marks) - 1) / 2) / len(marks)
                # Not the first ones, which shares have.
                colour = COLOURS[(number + 2) % len(COLOURS)]
                interval_mark(panel, place + shift, lines[entry][mark], colour, mark if place == 0 else None)
        _finish(panel, heading)
        panel.grid(axis="x", alpha=0.25)
    return figure


def _bar(panel: Axes, place: int, ends: Mapping[str, Interval], colours: Mapping[str, str], *, labelled: bool) -> None:
    start = 0.0
    for number, (name, end) in enumerate(ends.items()):
        if not end.count:
            continue
        panel.barh(
            place,
            end.mean - start,
            left=start,
            height=0.66,
            color=colours[name],
            edgecolor="black",
            linewidth=0.6,
            label=plain_text(name) if labelled else None,
        )
        start = end.mean
        # One below the other, so that intervals of neighbours do not hide each other.
        at = place + 0.4 * ((number + 1) / len(ends) - 0.5)
        if number < len(ends) - 1:
            panel.plot([end.low, end.high], [at, at], color="black", linewidth=1.2, marker="|", markersize=4)


def _finish(panel: Axes, title: str) -> None:
    panel.set_title(title, fontsize=10)
    if panel.get_legend_handles_labels()[0]:
        # Away from the axis by a distance that does not depend on the panel's height.
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=2.4, ncols=2, frameon=False, fontsize=8)
