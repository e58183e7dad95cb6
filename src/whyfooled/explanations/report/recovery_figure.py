"""The figures of recovery: one panel for each way of perturbing pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whyfooled.drawing.figures.differences import MOST_LINES, draw_differences, write_row_title
from whyfooled.drawing.style import COLOURS, DASHES, PANEL_SIZE, TEXT_SIZE, plain_panel, plain_text, wrap_text
from whyfooled.drawing.words import shortened
from whyfooled.explanations.report.recovery import write_whole
from whyfooled.saliency.recovery import RANDOM, SHIFTED

FILL_TITLES = {"zero": "black", "mean": "the image's mean colour", "noise": "uniform noise", "blur": "blurred"}

_GREY = "#868e96"
_LINE_INCHES, _LEGEND_LETTERS = 0.18, 36
"""How high a line of a legend is, and how many letters it has room for."""
_VISIBLE, _LEAST = 0.2, 1e-9
"""Probability from which a curve is seen on a scale up to 1, and the least end of a scale. [ours]"""


def draw_recovery(numbers: dict[str, Any], fill: str, ink: str = "black") -> Figure:
    """Draw the probability of the true class over the share of perturbed pixels, for one way of perturbing them.

    Where there are more orders than `MOST_LINES`, the figure has a cell for each order and share, with the difference
    from the random order.
    """
    curves = [order for order in numbers["recovery"] if fill in order["fills"]]
    if len(curves) > MOST_LINES:
        return _draw_differences(curves, fill, ink)
    width, height = PANEL_SIZE
    figure = Figure(layout="constrained")
    panel = figure.subplots()
    _draw_curves(panel, [(one, one["fills"][fill]) for one in curves], numbers, ink)
    panel.set_title(f"pixels become {FILL_TITLES.get(fill, fill)}", fontsize=TEXT_SIZE, color=ink)
    # A class may be called anything, dollar signs included.
    panel.set_ylabel(plain_text(f"probability of\n{shortened(numbers['true']['name'], 30)}"), color=ink)
    panel.set_xlabel("pixels replaced, the strongest first", color=ink)
    points = len(curves[0]["fills"][fill]["fraction"])
    heading = f"and at how many of {points} shares\nit is the likeliest class:"
    lines = sum(str(line.get_label()).count("\n") + 1 for line in panel.get_lines())
    figure.set_size_inches(width, height + _LINE_INCHES * (lines + 2))
    legend = figure.legend(
        title=heading, loc="outside lower left", frameon=False, labelcolor=ink,
        fontsize=TEXT_SIZE, title_fontsize=TEXT_SIZE, alignment="left", labelspacing=0.3,
    )  # fmt: skip
    legend.get_title().set_color(ink)
    return figure


def _draw_curves(
    panel: Axes, curves: list[tuple[dict[str, Any], dict[str, Any]]], numbers: dict[str, Any], ink: str
) -> None:
    start = numbers["true"]["probability"]["adversarial"]
    for number, (order, curve) in enumerate(curves):
        share = [0.0, *curve["fraction"]]
        probability = [start, *curve["probability"]]
        label = order["title"]
        style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}
        if order["control"]:
            style = {"color": ink, "linestyle": ":"}
        if order["title"] == SHIFTED:
            style = {"color": ink, "linestyle": "--"}
        if curve["orders"] > 1:
            label = f"{order['title']}, {curve['orders']}\u00a0times"
        if order["title"] == RANDOM:
            spread = [0.0, *curve["probability_std"]]
            low = [max(0.0, p - s) for p, s in zip(probability, spread, strict=True)]
            high = [min(1.0, p + s) for p, s in zip(probability, spread, strict=True)]
            panel.fill_between(share, low, high, color=_GREY, alpha=0.25, linewidth=0)
            label = f"{label} (±\u00a01\u00a0σ)"
            style = {"color": _GREY, "linestyle": "-"}
        counts = curve["shares_right"]
        label = wrap_text(f"{label}: {write_whole(sum(counts) / len(counts))}", _LEGEND_LETTERS)
        panel.plot(share, probability, linewidth=2.2 if number == 0 or order["control"] else 1.4, label=label, **style)
    # Where no class is likely, as with an untrained model, a scale up to 1 would show nothing.
    largest = max(max(curve["probability"]) for _, curve in curves)
    top = 1.0 if max(largest, start) >= _VISIBLE else 1.1 * max(largest, start, _LEAST)
    panel.set_ylim(-0.02 * top, 1.02 * top)
    panel.set_xscale("symlog", linthresh=0.005, linscale=0.4)
    panel.set_xlim(0, max(curves[0][1]["fraction"]) * 1.08)
    ticks = curves[0][1]["fraction"]
    labels = [f"{100 * tick:g} %" if tick in _choose_labelled(ticks) else "" for tick in ticks]
    panel.set_xticks([0, *ticks], ["0", *labels], fontsize=TEXT_SIZE)
    panel.minorticks_off()
    plain_panel(panel, ink)


def _choose_labelled(ticks: Sequence[float]) -> list[float]:
    """Choose the ticks that have a label, the last one first: a label that would run into another is left out."""
    chosen = [ticks[-1]]
    for tick in reversed(ticks):
        if tick * _APART <= chosen[-1]:
            chosen.append(tick)
    return chosen


_APART = 2.4
"""By which factor two ticks must differ for the labels of both to have room."""


def _draw_differences(curves: list[dict[str, Any]], fill: str, ink: str) -> Figure:
    """Draw each order's probability of the true class less that of random orders, one row each."""
    random = next(one for one in curves if one["title"] == RANDOM)["fills"][fill]
    rows = [one for one in curves if one["title"] != RANDOM]
    values = np.array([one["fills"][fill]["probability"] for one in rows]) - np.array(random["probability"])
    end = max(0.01, float(np.abs(values).max()))
    titles = [order["title"] for order in rows]
    lines = sum(write_row_title(title).count("\n") + 1 for title in titles)
    figure = Figure(figsize=(PANEL_SIZE[0], 0.14 * len(rows) + _LINE_INCHES * lines + 1.5), layout="constrained")
    panel = figure.subplots()
    shares = [f"{100 * share:g}" for share in random["fraction"]]
    draw_differences(panel, dict(zip(titles, values.tolist(), strict=True)), shares, end=end, ink=ink)
    panel.set_xlabel("pixels replaced, in %", color=ink)
    heading = f"pixels become {FILL_TITLES.get(fill, fill)}:\nprobability less that of"
    heading += f"\n{random['orders']} random orders, in percentage points"
    figure.suptitle(heading, x=0.02, ha="left", fontsize=TEXT_SIZE, color=ink)
    return figure
