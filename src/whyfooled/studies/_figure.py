"""What the figures of studies have in common."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image as PILImage

from whyfooled.statistics import Interval

COLOURS = ("#d9480f", "#1c7ed6", "#2f9e44", "#ae3ec9", "#e8a600", "#0c8599", "#c2255c", "#5c940d")
DASHES = ("-", "--", "-.", (0, (1, 1)), (0, (3, 1, 1, 1)), (0, (5, 1)))
GREY = "#868e96"
Curves = Mapping[str, Sequence[tuple[float, Interval]]]
"""For each name, points (x, mean with interval)."""


def curves_figure(panels: Mapping[str, Curves], *, x: str, y: str, references: Sequence[str] = ()) -> Figure:
    """Draw curves with their intervals, a panel for each entry; the same curve looks the same in all.

    Parameters
    ----------
    panels
        For each title, the curves.
    x, y
        What the axes show.
    references
        Names of curves that others are held against, drawn in black and grey.
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns + 3.4, 3.1 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    looks = _looks(names, references)
    for panel, (heading, curves) in zip(axes, panels.items(), strict=False):
        panel.set_title(heading, fontsize=10)
        for name, points in curves.items():
            _curve(panel, name, points, *looks[name], shaded=name in references or len(names) < _CROWDED)
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


_CROWDED = 7
"""With as many curves, shaded intervals would hide each other; error bars stay."""


def _looks(names: Sequence[str], references: Sequence[str]) -> dict[str, tuple[str, object, float]]:
    """Give each name a colour, a dash and a width."""
    looks: dict[str, tuple[str, object, float]] = {}
    others = [name for name in names if name not in references]
    for number, name in enumerate(others):
        looks[name] = (COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)], 1.6)
    for number, name in enumerate(references):
        looks[name] = (("black", GREY)[number % 2], "-", 2.2)
    return looks


def _curve(
    panel: Axes,
    name: str,
    points: Sequence[tuple[float, Interval]],
    colour: str,
    dash: object,
    width: float,
    *,
    shaded: bool,
) -> None:
    places = [place for place, _ in points]
    values = [value.mean for _, value in points]
    low = [value.low for _, value in points]
    high = [value.high for _, value in points]
    panel.plot(places, values, label=name, color=colour, linestyle=dash, linewidth=width, marker="o", markersize=2.5)
    if shaded:
        panel.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


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


def intervals_figure(panels: Intervals, *, x: str) -> Figure:
    """Draw means with their intervals as marks on a line for each name, a panel for each entry.

    Parameters
    ----------
    panels
        For each title, the lines and their marks.
    x
        What the marks measure.
    """
    names = list(next(iter(panels.values())))
    columns = 2 if len(panels) > 1 else 1
    rows = -(-len(panels) // columns)
    height = 0.34 * len(names) + 0.9
    figure = Figure(figsize=(4.0 * columns + 2.2, height * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for panel, (title, lines) in zip(axes, panels.items(), strict=False):
        for place, name in enumerate(names):
            for number, (mark, value) in enumerate(lines[name].items()):
                _mark(panel, place + 0.2 * (number - 1), value, COLOURS[number], mark if place == 0 else None)
        panel.set_title(title, fontsize=10)
        panel.grid(axis="x", alpha=0.25)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].invert_yaxis()
    for spare in axes[len(panels) :]:
        spare.set_visible(False)
    for panel in axes[max(0, len(panels) - columns) : len(panels)]:
        panel.set_xlabel(x, fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)
    return figure


def _mark(panel: Axes, place: float, value: Interval, colour: str, label: str | None) -> None:
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
class Tile:
    """A picture in a grid, with what stands above and below it."""

    picture: PILImage.Image
    above: str
    below: str


def tiles_figure(blocks: Sequence[Sequence[Sequence[Tile]]]) -> Figure:
    """Draw blocks of rows of pictures, one below the other; the first block says what the columns are."""
    columns = max(len(row) for block in blocks for row in block)
    rows = sum(len(block) for block in blocks)
    figure = Figure(figsize=(1.5 * columns + 0.2, 1.75 * rows + 0.3 * len(blocks)), layout="constrained")
    parts = figure.subfigures(len(blocks), 1, height_ratios=[len(block) for block in blocks], squeeze=False)[:, 0]
    for part, block in zip(parts, blocks, strict=True):
        axes = part.subplots(len(block), columns, squeeze=False)
        for line, row in zip(axes, block, strict=True):
            for panel in line:
                panel.set_axis_off()
            for number, (panel, tile) in enumerate(zip(line, row, strict=False)):
                panel.imshow(tile.picture)
                if number == 0 or row is block[0]:
                    panel.set_title(_wrapped(tile.above), fontsize=7, parse_math=False)
                if tile.below:
                    panel.text(
                        0.5,
                        -0.04,
                        _wrapped(tile.below),
                        transform=panel.transAxes,
                        ha="center",
                        va="top",
                        fontsize=7,
                        parse_math=False,
                    )
    return figure


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 24)
