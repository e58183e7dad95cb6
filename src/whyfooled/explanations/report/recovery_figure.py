"""The figure of the recovery curves."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whyfooled.drawing.style import COLOURS, DASHES, plain_panel

_FILL_TITLES = {"zero": "black", "mean": "image mean", "noise": "uniform noise", "blur": "blurred"}


def draw_recovery(numbers: dict[str, Any], ink: str = "black") -> Figure:
    """Draw the probability of the true class over the share of perturbed pixels, one panel for each fill."""
    curves = numbers["recovery"]
    fills = list(curves[0]["fills"])
    figure = Figure(figsize=(8.4, 6.4), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey=True).flatten()
    for panel, fill in zip(axes, fills, strict=True):
        _draw_panel(panel, [(one["title"], one["orders"], one["fills"][fill]) for one in curves], numbers, ink)
        panel.set_title(f"pixels become {_FILL_TITLES.get(fill, fill)}", fontsize=10, color=ink)
    for panel in axes[::2]:
        # A class may be called anything, dollar signs included.
        panel.set_ylabel(f"probability of {numbers['true']['name']}", color=ink, parse_math=False)
    for panel in axes[2:]:
        panel.set_xlabel("perturbed pixels, most salient first", color=ink)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, labelcolor=ink, fontsize=9)
    return figure


def _draw_panel(panel: Axes, curves: list[tuple[str, int, dict[str, Any]]], numbers: dict[str, Any], ink: str) -> None:
    start = numbers["true"]["probability"]["adversarial"]
    for number, (title, orders, curve) in enumerate(curves):
        share = [0.0, *curve["fraction"]]
        probability = [start, *curve["probability"]]
        if orders > 1:
            spread = [0.0, *curve["probability_std"]]
            low = [max(0.0, p - s) for p, s in zip(probability, spread, strict=True)]
            high = [min(1.0, p + s) for p, s in zip(probability, spread, strict=True)]
            panel.fill_between(share, low, high, color="#868e96", alpha=0.25, linewidth=0)
            label = f"{title}, {orders} times (± 1 standard deviation)"
            panel.plot(share, probability, color="#868e96", linewidth=2, label=label)
        else:
            style: dict[str, Any] = {
                "color": COLOURS[number % len(COLOURS)],
                "linestyle": DASHES[number % len(DASHES)],
            }
            panel.plot(share, probability, linewidth=2.4 if number == 0 else 1.4, label=title, **style)
    panel.set_ylim(-0.02, 1.02)
    panel.set_xscale("symlog", linthresh=0.005, linscale=0.4)
    ticks = curves[0][2]["fraction"]
    # A label that would run into the next one is left out.
    crowded = {tick for tick, following in pairwise(ticks) if following < 1.6 * tick}
    labels = ["" if tick in crowded else f"{100 * tick:g} %" for tick in ticks]
    panel.set_xticks([0, *ticks], ["0", *labels], fontsize=8)
    panel.minorticks_off()
    plain_panel(panel, ink)
