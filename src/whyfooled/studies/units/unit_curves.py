"""The figure of curves over the share of a layer's units, most sensitive first: a column of panels for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whyfooled.drawing.figures.curves import GREY
from whyfooled.drawing.style import COLOURS, plain_text
from whyfooled.studies.units.living_units import ATTACK, BEYOND, NOISE
from whyfooled.studies.units.most_sensitive import TopCurves

Column = Mapping[str, Mapping[str, TopCurves]]
"""For each row's title, for each attack, its curves."""

_DASHES: Mapping[str, object] = {ATTACK: "-", BEYOND: (0, (1, 1.2))}
_NOISE = ((0, (4, 2)), (0, (7, 1.5)), (0, (4, 1, 1, 1)), (0, (2, 1)))
"""Dashes that tell the noise of one attack from that of another: all of it is grey."""


def unit_curves_figure(columns: Mapping[str, Column], *, x: str) -> Figure:
    """Draw each layer's curves: solid for attacks, grey dashes for noise as large, dots for what is beyond that.

    The grey band is where the middle 95 % of random rankings lie, the thin line what all units come to.

    Parameters
    ----------
    columns
        For each layer, the panels from top to bottom.
    x
        What the curves run over.
    """
    rows = list(next(iter(columns.values())))
    panels = [panel for column in columns.values() for panel in column.values()]
    attacks = list(dict.fromkeys(attack for panel in panels for attack in panel))
    figure = Figure(figsize=(max(5.6, 3.4 * len(columns) + 0.6), 2.7 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), sharex=True, sharey="row", squeeze=False)
    for number, (layer, column) in enumerate(columns.items()):
        for line, (row, curves) in zip(axes, column.items(), strict=True):
            _draw(line[number], curves, attacks)
            line[0].set_ylabel(row)
        axes[0][number].set_title(plain_text(layer), fontsize=10)
        axes[-1][number].set_xlabel(x)
    for line in axes:
        line[0].set_ylim(bottom=0)
    entries: dict[str, Artist] = {}
    for panel in axes.flatten():
        handles, labels = panel.get_legend_handles_labels()
        entries |= zip(map(str, labels), handles, strict=True)
    look = {"ncols": min(len(entries), 4), "frameon": False, "fontsize": 8}
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", **look)
    return figure


def _draw(panel: Axes, curves: Mapping[str, TopCurves], attacks: Sequence[str]) -> None:
    for attack, tops in curves.items():
        places = [100 * share for share in tops.shares]
        if attack == next(iter(curves)):
            band = "95 % of random rankings"
            panel.fill_between(places, tops.low, tops.high, color=GREY, alpha=0.18, lw=0, label=band)
            panel.axhline(tops.whole, color=GREY, linewidth=0.8)
        place = attacks.index(attack)
        colour = COLOURS[place % len(COLOURS)]
        for kind, line in tops.lines.items():
            panel.plot(
                places,
                line,
                color=GREY if kind == NOISE else colour,
                linestyle=_NOISE[place % len(_NOISE)] if kind == NOISE else _DASHES[kind],
                linewidth=1.2 if kind == NOISE else 1.7,
                label=plain_text(_NAMES[kind].format(attack)),
            )
    panel.set_xlim(0, 100)
    panel.grid(alpha=0.25)


_NAMES = {ATTACK: "{}", NOISE: "noise as large as {}", BEYOND: "{} over noise"}
