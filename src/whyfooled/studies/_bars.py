"""Stacked bars of shares with their intervals, beside other numbers of the same entries."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whyfooled.report.figure import COLOURS
from whyfooled.statistics import Interval
from whyfooled.studies._figure import Intervals, _mark, _plain

Bars = Mapping[str, Mapping[str, Interval]]
"""For each entry, its shares by name, which add up to 1."""


def bars_figure(bars: Bars, panels: Intervals, *, title: str, colours: Mapping[str, str]) -> Figure:
    """Draw a stacked bar for each entry and, in panels to its right, other numbers of the same entries.

    Parameters
    ----------
    bars
        The shares of each entry. An interval is drawn about the end of its share.
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
    first.set_yticks(range(len(entries)), [_plain(entry) for entry in entries], fontsize=8)
    first.set_ylim(len(entries) - 0.5, -0.5)
    for panel, (heading, lines) in zip(others, panels.items(), strict=True):
        marks = list(dict.fromkeys(mark for line in lines.values() for mark in line))
        for place, entry in enumerate(entries):
            for number, mark in enumerate(marks):
                shift = 0.5 * (number - (len(marks) - 1) / 2) / len(marks)
                colour = COLOURS[number % len(COLOURS)]
                _mark(panel, place + shift, lines[entry][mark], colour, mark if place == 0 else None)
        _finish(panel, heading)
        panel.grid(axis="x", alpha=0.25)
    return figure


def _bar(
    panel: Axes, place: int, shares: Mapping[str, Interval], colours: Mapping[str, str], *, labelled: bool
) -> None:
    start = 0.0
    for number, (name, share) in enumerate(shares.items()):
        if not share.count:
            continue
        panel.barh(
            place,
            share.mean,
            left=start,
            height=0.66,
            color=colours[name],
            edgecolor="black",
            linewidth=0.6,
            label=_plain(name) if labelled else None,
        )
        start += share.mean
        if number < len(shares) - 1:
            # One below the other, so that intervals of neighbours do not hide each other.
            at = place + 0.4 * ((number + 1) / len(shares) - 0.5)
            low, high = start - (share.mean - share.low), start + (share.high - share.mean)
            panel.plot([low, high], [at, at], color="black", linewidth=1.2, marker="|", markersize=4)


def _finish(panel: Axes, title: str) -> None:
    panel.set_title(title, fontsize=10)
    handles, _ = panel.get_legend_handles_labels()
    if handles:
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False, fontsize=8)
