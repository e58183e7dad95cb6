"""Curves with their intervals, and how the names of a figure look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whyfooled.drawing.figures.differences import MOST_LINES, draw_differences
from whyfooled.drawing.style import COLOURS, DASHES, plain_text
from whyfooled.tensors.statistics import Interval

GREY = "#868e96"
Curves = Mapping[str, Sequence[tuple[float, Interval]]]
"""For each name, points (x, mean with interval)."""


def curves_figure(panels: Mapping[str, Curves], *, x: str, y: str, references: Sequence[str] = ()) -> Figure:
    """Draw curves with their intervals over a logarithmic axis, a panel for each entry; a name looks the same in all.

    With more than `MOST_LINES` names, and a reference, each panel has a cell for each name and place instead, with the
    difference of the means from the first reference's: the curves could not be told apart.

    Parameters
    ----------
    panels
        For each title, the curves.
    x, y
        What the axes show.
    references
        Names of curves that others are compared with, drawn in black and grey.
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    if len(names) > MOST_LINES and references:
        return _draw_difference_panels(panels, names, references[0], x, y)
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns + 3.4, 3.1 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    shown = looks(names, references)
    for panel, (heading, curves) in zip(axes, panels.items(), strict=False):
        panel.set_title(heading, fontsize=10)
        # Side by side, so that the intervals of one share of pixels do not hide each other.
        for number, (name, points) in enumerate(curves.items()):
            _curve(panel, name, points, *shown[name], shift=_DODGE ** (number - (len(curves) - 1) / 2))
        panel.set_xscale("log")
        ticks = sorted({place for points in curves.values() for place, _ in points})
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.25)
    for spare in axes[len(panels) :]:
        spare.set_visible(False)
    for panel in axes[::columns]:
        panel.set_ylabel(y)
    for panel in axes[max(0, len(panels) - columns) : len(panels)]:
        panel.set_xlabel(x)
        panel.xaxis.set_tick_params(labelbottom=True)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    return figure


_DODGE = 1.022
"""How far the next curve stands to the right, as a factor: more than a whisker is wide."""


def _draw_difference_panels(
    panels: Mapping[str, Curves], names: Sequence[str], reference: str, x: str, y: str
) -> Figure:
    """Draw what each curve is above or below the reference, a panel for each entry, on one scale."""
    others = [name for name in names if name != reference]
    differences = {
        heading: {
            name: [
                value.mean - base.mean for (_, value), (_, base) in zip(curves[name], curves[reference], strict=True)
            ]
            for name in others
            if name in curves
        }
        for heading, curves in panels.items()
    }
    end = max(0.01, *(abs(value) for rows in differences.values() for row in rows.values() for value in row))
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns + 1.4, (0.24 * len(others) + 1.1) * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for panel, (heading, cells) in zip(axes, differences.items(), strict=False):
        draw_differences(panel, cells, [f"{place:g}" for place, _ in panels[heading][reference]], end=end)
        panel.set_title(heading, fontsize=10)
        panel.set_xlabel(x, fontsize=9)
    for spare in axes[len(panels) :]:
        spare.set_visible(False)
    figure.suptitle(
        plain_text(f"{y}, less that of {reference.lower()}, in percentage points"), x=0.02, ha="left", fontsize=10
    )
    return figure


def looks(names: Sequence[str], references: Sequence[str]) -> dict[str, tuple[str, object, float]]:
    """Give each name a colour, a dash and a width; references are black and grey."""
    styles: dict[str, tuple[str, object, float]] = {}
    others = [name for name in names if name not in references]
    for number, name in enumerate(others):
        styles[name] = (COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)], 1.6)
    for number, name in enumerate(references):
        styles[name] = (("black", GREY)[number % 2], DASHES[number // 2 % len(DASHES)], 2.2)
    return styles


def _curve(
    panel: Axes,
    name: str,
    points: Sequence[tuple[float, Interval]],
    colour: str,
    dash: object,
    width: float,
    *,
    shift: float,
) -> None:
    places = [place * shift for place, _ in points]
    values = [value.mean for _, value in points]
    panel.plot(
        places,
        values,
        label=plain_text(name),
        color=colour,
        linestyle=dash,
        linewidth=width,
        marker="o",
        markersize=2.5,
    )
    for place, (_, value) in zip(places, points, strict=True):
        panel.plot([place, place], [value.low, value.high], color=colour, linewidth=0.7, alpha=0.6)
