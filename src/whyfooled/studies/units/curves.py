"""Curves over the share of a layer's units that are taken, most sensitive first, a column of panels for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.drawing.figures.curves import GREY
from whyfooled.drawing.style import COLOURS, plain_text
from whyfooled.studies.units.links import ATTACK, BEYOND, NOISE, LivingUnits, dealt_out, most_sensitive


@dataclass(frozen=True)
class Curves:
    """A number's mean among the N most sensitive units, over N, for a figure.

    Parameters
    ----------
    shares
        N as shares of the living units.
    lines
        The means, for each ranking.
    low, high
        The middle 95 % of what chance gives.
    whole
        The mean over all units.
    """

    shares: list[float]
    lines: Mapping[str, list[float]]
    low: list[float]
    high: list[float]
    whole: float


POINTS, FIRST = 60, 10
"""How many N a curve has, at most, and the first: of fewer units a mean says little. [ours]"""


def curves(units: LivingUnits, values: Tensor, seed: int) -> Curves:
    """Take the mean of a number among the N most sensitive units, for every ranking."""
    count = units.count
    first = min(FIRST, max(1, count // 10))
    sizes = torch.linspace(first, count - 1, min(POINTS, max(0, count - first))).round().long()
    if not len(sizes):
        return Curves([], {}, [], [], float(values.mean()))
    lines = {}
    for kind, score in units.plain_scores().items():
        ordered = values[score.argsort(descending=True, stable=True)]
        lines[kind] = (ordered.cumsum(0)[sizes - 1] / sizes).tolist()
    band = dealt_out(
        values, most_sensitive(torch.arange(count, 0, -1).double(), sizes.tolist()), units.permutations, seed
    )
    # From the difference to the rest to the mean itself.
    part = (count - sizes) / count
    whole = float(values.mean())
    low, high = ((whole + end * part).tolist() for end in (band.low, band.high))
    return Curves((sizes / count).tolist(), lines, low, high, whole)


Column = Mapping[str, Mapping[str, Curves]]
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
    attacks = list(
        dict.fromkeys(attack for column in columns.values() for panel in column.values() for attack in panel)
    )
    figure = Figure(figsize=(max(5.6, 3.4 * len(columns) + 0.6), 2.7 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), sharex=True, sharey="row", squeeze=False)
    for number, (layer, column) in enumerate(columns.items()):
        for line, (row, panel) in zip(axes, column.items(), strict=True):
            _draw(line[number], panel, attacks)
            if number == 0:
                line[0].set_ylabel(row)
        axes[0][number].set_title(plain_text(layer), fontsize=10)
        axes[-1][number].set_xlabel(x)
    for line in axes:
        line[0].set_ylim(bottom=0)
    _legend(figure, axes.flatten().tolist())
    return figure


def _draw(panel: Axes, curves: Mapping[str, Curves], attacks: Sequence[str]) -> None:
    for attack, own in curves.items():
        places = [100 * share for share in own.shares]
        if attack == next(iter(curves)):
            panel.fill_between(places, own.low, own.high, color=GREY, alpha=0.18, lw=0, label="95 % of random rankings")
            panel.axhline(own.whole, color=GREY, linewidth=0.8)
        place = attacks.index(attack)
        colour = COLOURS[place % len(COLOURS)]
        for kind, line in own.lines.items():
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


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    entries: dict[str, Artist] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        entries |= zip(map(str, labels), handles, strict=True)
    names = list(entries)
    columns = min(len(names), 4)
    figure.legend(
        [entries[name] for name in names], names, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
