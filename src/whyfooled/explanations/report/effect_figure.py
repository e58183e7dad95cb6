"""The figures of a perturbation's effect over its regions, the strongest first."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from whyfooled.drawing.style import KIND_COLOURS, PANEL_SIZE, TEXT_SIZE, plain_panel, wrap_text
from whyfooled.drawing.words import by_number, shortened
from whyfooled.explanations.report.effect import KIND_WORDS
from whyfooled.perturbation import KINDS, Sensitivity

_MARKS = {"suppression": "v", "promotion": "^", "balanced": "o", "inert": "."}


def draw_effects(sensitivity: Sensitivity, true: str, wrong: str, ink: str = "black") -> Figure:
    """Draw what every touched region does to the two logits.

    Parameters
    ----------
    sensitivity
        The sensitivity of one image's regions.
    true, wrong
        The names of the two classes.
    ink
        Colour of text and lines.
    """
    order = _order_regions(sensitivity)
    figure, panel = _open_panel(sensitivity, ink)
    edges = torch.arange(len(order) + 1) + 0.5
    gain, drop = sensitivity.target_gain[0][order], sensitivity.true_drop[0][order]
    lifts, holds = (wrap_text(text, 36) for text in (f"lifts {shortened(wrong)}", f"holds {shortened(true)} down"))
    panel.stairs(gain, edges, fill=True, color=KIND_COLOURS["promotion"], label=lifts)
    panel.stairs(-drop, edges, fill=True, color=KIND_COLOURS["suppression"], label=holds)
    panel.axhline(0, color=ink, linewidth=0.8)
    carriers = int(sensitivity.carriers())
    panel.annotate(
        f"{carriers} {by_number(carriers, 'carries', 'carry')} 80 %", (carriers + 0.5, 1),
        xycoords=("data", "axes fraction"), xytext=(4, -10), textcoords="offset points", color=ink, fontsize=TEXT_SIZE,
    )  # fmt: skip
    panel.set_ylabel("change of the logit", color=ink)
    figure.legend(frameon=False, labelcolor=ink, fontsize=TEXT_SIZE, loc="outside lower left")
    return figure


def draw_ratios(sensitivity: Sensitivity, ink: str = "black") -> Figure:
    """Draw the promotion-suppression ratio of every touched region, with the lines that divide the kinds."""
    order = _order_regions(sensitivity)
    figure, panel = _open_panel(sensitivity, ink)
    ratios, kinds = sensitivity.ratio[0][order], sensitivity.kind[0][order]
    for code, kind in enumerate(KINDS):
        chosen = (kinds == code).nonzero()[:, 0]
        if len(chosen):
            panel.scatter(
                chosen + 1, ratios[chosen], s=14, marker=_MARKS[kind], color=KIND_COLOURS[kind], linewidths=0,
                label=KIND_WORDS[kind],
            )  # fmt: skip
    for line in (-1, 1):
        panel.axhline(line, color=ink, linewidth=0.9, linestyle="--")
    panel.set_ylabel("lifts over holds down\n(log2)", color=ink)
    figure.legend(
        frameon=False,
        labelcolor=ink,
        fontsize=TEXT_SIZE,
        loc="outside lower left",
        ncols=2,
        markerscale=1.5,
        columnspacing=1.0,
    )
    return figure


def _order_regions(sensitivity: Sensitivity) -> torch.Tensor:
    return sensitivity.score[0].argsort(descending=True, stable=True)[: int(sensitivity.touched.sum())]


def _open_panel(sensitivity: Sensitivity, ink: str) -> tuple[Figure, Axes]:
    """Open a panel whose line divides the regions that carry most of the effect from the rest."""
    figure = Figure(figsize=PANEL_SIZE, layout="constrained")
    panel = figure.subplots()
    panel.axvline(int(sensitivity.carriers()) + 0.5, color=ink, linewidth=0.9, linestyle=":")
    panel.set_xlabel("regions, the most sensitive first", color=ink)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain_panel(panel, ink)
    return figure, panel
