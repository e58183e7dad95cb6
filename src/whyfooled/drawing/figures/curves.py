"""What the figures of studies have in common."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image as PILImage

from whyfooled.drawing.style import COLOURS, DASHES, plain_text
from whyfooled.tensors.statistics import Interval

GREY = "#868e96"
Curves = Mapping[str, Sequence[tuple[float, Interval]]]
"""For each name, points (x, mean with interval)."""


def curves_figure(panels: Mapping[str, Curves], *, x: str, y: str, references: Sequence[str] = ()) -> Figure:
    """Draw curves with their intervals over a logarithmic axis, a panel for each entry; a name looks the same in all.

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
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns + 3.4, 3.1 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    shown = looks(names, references)
    for panel, (heading, curves) in zip(axes, panels.items(), strict=False):
        panel.set_title(heading, fontsize=10)
        # Side by side, so that the intervals of one share of pixels do not hide each other.
        for number, (name, points) in enumerate(curves.items()):
            bars = len(names) <= _CROWDED or name in references or number == 0
            _curve(panel, name, points, *shown[name], shift=_DODGE ** (number - len(curves) / 2), bars=bars)
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


_DODGE = 1.008
"""How far the next curve stands to the right, as a factor."""
_CROWDED = 10
"""With more curves, only the first and the references show their intervals: the others would hide each other."""


def looks(names: Sequence[str], references: Sequence[str]) -> dict[str, tuple[str, object, float]]:
    """Give each name a colour, a dash and a width; references are black and grey."""
    styles: dict[str, tuple[str, object, float]] = {}
    others = [name for name in names if name not in references]
    for number, name in enumerate(others):
        styles[name] = (COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)], 1.6)
    for number, name in enumerate(references):
        styles[name] = (("black", GREY)[number % 2], "-", 2.2)
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
    bars: bool,
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
    for place, (_, value) in zip(places, points if bars else (), strict=False):
        panel.plot([place, place], [value.low, value.high], color=colour, linewidth=0.7, alpha=0.6)


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


Intervals = Mapping[str, Mapping[str, Mapping[str, Interval]]]
"""For each panel, for each line, for each mark on it, a mean with its interval."""


def intervals_figure(panels: Intervals, *, x: str, shared: bool = False) -> Figure:
    """Draw means with their intervals as marks on a line for each name, a panel for each entry.

    Parameters
    ----------
    panels
        For each title, the lines and their marks.
    x
        What the marks measure.
    shared
        Whether all panels have one axis, which begins at 0 or below.
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
        ncols=min(4, len(handles)),
        frameon=False,
        fontsize=8,
    )
    return figure


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


@dataclass(frozen=True)
class Line:
    """A row of pictures in a grid: what it is, at its left, and each picture with the heading of its column."""

    label: str
    tiles: Sequence[tuple[str, PILImage.Image]]


def tiles_figure(blocks: Sequence[tuple[str, Sequence[Line]]]) -> Figure:
    """Draw titled blocks of rows of pictures, one below the other; the labels have a column of their own."""
    columns = max(len(line.tiles) for _, block in blocks for line in block)
    rows = sum(len(block) for _, block in blocks)
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=(1.5 * columns + 1.4, 1.55 * rows + 0.7 * len(blocks)), layout=layout)
    parts = figure.subfigures(len(blocks), 1, height_ratios=[len(block) for _, block in blocks], squeeze=False)[:, 0]
    for part, (title, block) in zip(parts, blocks, strict=True):
        part.suptitle(f"{title}\n", fontsize=9, x=0.01, ha="left", parse_math=False)
        axes = part.subplots(len(block), columns + 1, squeeze=False, width_ratios=[0.9, *[1] * columns])
        for (beside, *panels), line in zip(axes, block, strict=True):
            for panel in (beside, *panels):
                panel.set_axis_off()
            label = "\n".join(textwrap.fill(text, 18) for text in line.label.split("\n") if text)
            beside.text(
                0.95, 0.5, label, transform=beside.transAxes, ha="right", va="center", fontsize=7, parse_math=False
            )
            for panel, (heading, picture) in zip(panels, line.tiles, strict=False):
                panel.imshow(picture)
                if line is block[0]:
                    panel.set_title(textwrap.fill(heading, 20), fontsize=7, parse_math=False)
    return figure
