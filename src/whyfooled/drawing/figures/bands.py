"""Curves with bands for their intervals, bars where a curve would be one point, and one number against another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whyfooled.drawing.figures.curves import GREY, Curves, looks
from whyfooled.drawing.style import plain_text
from whyfooled.tensors.statistics import Interval

Points = Mapping[str, Sequence[tuple[float, float]]]
"""For each name, single points (x, y)."""
Tradeoffs = Mapping[str, Sequence[tuple[Interval, Interval]]]
"""For each name, points whose both coordinates have intervals, in the order in which a line joins them."""


def band_panel(panel: Axes, curves: Curves, names: Iterable[str], references: Sequence[str], points: Points) -> None:
    """Draw curves with bands over a logarithmic axis; `names` are all that the figure has, which decide the colours."""
    shown = looks(list(names), references)
    for name, line in curves.items():
        colour, dash, width = shown[name]
        places = [place for place, _ in line]
        panel.plot(
            places,
            [value.mean for _, value in line],
            color=colour,
            linestyle=dash,
            linewidth=width,
            marker="o",
            markersize=3,
            label=plain_text(name),
        )
        panel.fill_between(
            places, [value.low for _, value in line], [value.high for _, value in line], color=colour, alpha=0.15, lw=0
        )
        single = points.get(name, ())
        panel.plot([x for x, _ in single], [y for _, y in single], ".", color=colour, markersize=4, alpha=0.6)
    panel.set_xscale("log")
    ticks = sorted({place for line in curves.values() for place, _ in line})
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    panel.grid(alpha=0.25)


def bar_panel(panel: Axes, bars: Mapping[str, Interval], names: Iterable[str], references: Sequence[str]) -> None:
    """Draw a bar with its interval for each name, from top to bottom."""
    shown = looks(list(names), references)
    for place, (name, value) in enumerate(bars.items()):
        panel.barh(place, value.mean, height=0.66, color=shown[name][0], alpha=0.85)
        # Grey, where it would not be seen on a black bar.
        colour = GREY if name in references else "black"
        panel.plot([value.low, value.high], [place, place], color=colour, linewidth=2, marker="|", markersize=7)
    panel.set_yticks(range(len(bars)), [plain_text(name) for name in bars], fontsize=8)
    panel.set_ylim(len(bars) - 0.5, -0.5)
    panel.set_xlim(left=0)
    panel.grid(axis="x", alpha=0.25)


def tradeoff_panel(panel: Axes, lines: Tradeoffs, names: Iterable[str], references: Sequence[str]) -> None:
    """Draw one number against another, each with its interval; a line joins the points of a name."""
    shown = looks(list(names), references)
    for name, line in lines.items():
        colour, dash, _ = shown[name]
        panel.plot([x.mean for x, _ in line], [y.mean for _, y in line], color=colour, linestyle=dash, linewidth=0.9)
        for x, y in line:
            panel.plot([x.low, x.high], [y.mean, y.mean], color=colour, linewidth=0.9, alpha=0.7)
            panel.plot([x.mean, x.mean], [y.low, y.high], color=colour, linewidth=0.9, alpha=0.7)
            panel.plot(x.mean, y.mean, "o", color=colour, markersize=5)
    panel.grid(alpha=0.25)


def bands_figure(
    curves: Curves, *, x: str, y: str, references: Sequence[str] = (), points: Points | None = None
) -> Figure:
    """Draw curves with bands in one panel, and single points beside them.

    Parameters
    ----------
    curves
        Points (x, mean with interval) for each name.
    x, y
        What the axes show.
    references
        Names of curves that others are compared with, drawn in black and grey.
    points
        What the means were taken of, in each curve's colour.
    """
    figure = Figure(figsize=(7.6, 4.0), layout="constrained")
    panel = figure.subplots()
    band_panel(panel, curves, list(curves), references, points or {})
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure


def tradeoff_figure(
    rows: Mapping[str, tuple[Curves, Tradeoffs]], *, x: str, y: str, other: str, references: Sequence[str] = ()
) -> Figure:
    """Draw a number's curves (bars where there is one point each) and, beside them, the number against another.

    Parameters
    ----------
    rows
        For each title, the curves of its left panel and the lines of its right one.
    x
        What the curves run over.
    y
        What is drawn.
    other
        What it is drawn against on the right.
    references
        Names that others are compared with, drawn in black and grey.
    """
    names = list(dict.fromkeys(name for curves, _ in rows.values() for name in curves))
    single = all(len(line) == 1 for curves, _ in rows.values() for line in curves.values())
    height = max(2.6, 0.8 + 0.34 * len(names)) if single else 3.3
    figure = Figure(figsize=(9.4 if single else 11.0, height * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), 2, squeeze=False)
    for (left, right), (heading, (curves, lines)) in zip(axes, rows.items(), strict=True):
        if single:
            bar_panel(left, {name: line[0][1] for name, line in curves.items()}, names, references)
            left.set_xlabel(y)
        else:
            band_panel(left, curves, names, references, {})
            left.set_xlabel(x)
            left.set_ylabel(y)
        tradeoff_panel(right, lines, names, references)
        right.set_xlabel(other)
        right.set_ylabel(y)
        left.set_title(plain_text(heading), fontsize=10, loc="left")
    if not single:
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    return figure


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
        Names of curves that others are compared with, drawn in black and grey.
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
