"""The figure of a perturbation's effect over its regions, the strongest first."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from whyfooled.drawing.style import KIND_COLOURS, plain_panel, plain_text
from whyfooled.perturbation import KINDS, Sensitivity

_MARKS = {"suppression": "v", "promotion": "^", "balanced": "o", "inert": "."}

_LONGEST = 40
"""Letters of a class's name in the legend: a longer one would leave no room for the panels."""


def draw_effect(sensitivity: Sensitivity, true: str, wrong: str, ink: str = "black") -> Figure:
    """Draw both effects of every touched region, and below them the promotion-suppression ratio with its ±1 lines.

    Parameters
    ----------
    sensitivity
        The sensitivity of one image's regions.
    true, wrong
        The names of the two classes.
    ink
        Colour of text and lines.
    """
    score = sensitivity.score[0]
    order = score.argsort(descending=True, stable=True)[: int(sensitivity.touched.sum())]
    figure = Figure(figsize=(8.4, 5.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.25, 1])
    edges = torch.arange(len(order) + 1) + 0.5
    gain, drop = sensitivity.target_gain[0][order], sensitivity.true_drop[0][order]
    above.stairs(gain, edges, fill=True, color=KIND_COLOURS["promotion"], label=_write_label("lifts ", wrong))
    above.stairs(
        -drop, edges, fill=True, color=KIND_COLOURS["suppression"], label=_write_label("holds ", true, " down")
    )
    above.axhline(0, color=ink, linewidth=0.8)
    carriers = int(sensitivity.carriers())
    for panel in (above, below):
        panel.axvline(carriers + 0.5, color=ink, linewidth=0.9, linestyle=":")
    above.annotate(
        f"{carriers} carry 80 %", (carriers + 0.5, 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
        textcoords="offset points", color=ink, fontsize=8,
    )  # fmt: skip
    above.set_ylabel("change of the logit", color=ink)
    above.legend(frameon=False, labelcolor=ink, fontsize=9, loc="lower right")
    ratios, kinds = sensitivity.ratio[0][order], sensitivity.kind[0][order]
    for code, kind in enumerate(KINDS):
        chosen = (kinds == code).nonzero()[:, 0]
        below.scatter(
            chosen + 1, ratios[chosen], s=14, marker=_MARKS[kind], color=KIND_COLOURS[kind], linewidths=0, label=kind
        )
    for line in (-1, 1):
        below.axhline(line, color=ink, linewidth=0.9, linestyle="--")
    below.set_ylabel("promotion-suppression\nratio (log2)", color=ink)
    below.set_xlabel("regions, the most sensitive first", color=ink)
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.legend(frameon=False, labelcolor=ink, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.5)
    for panel in (above, below):
        plain_panel(panel, ink)
    return figure


def _write_label(before: str, name: str, after: str = "") -> str:
    short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
    return plain_text(f"{before}{short}{after}")
