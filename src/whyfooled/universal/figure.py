"""The figure of a test: the universal perturbation, and beside it what it does and what chance does."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whyfooled.drawing.pictures import draw_delta, magnification
from whyfooled.drawing.style import COLOURS, plain_panel, plain_text
from whyfooled.universal import Evaluation

_BARS = (("universal", COLOURS[0]), ("random", "#868e96"))
_PANELS = {"dissimilarity": "D: how much the maps change", "fooled": "fooling rate"}


def draw_evaluation(evaluation: Evaluation) -> Figure:
    """Draw the perturbation, magnified, and bars of D and of the fooling rate, with their intervals."""
    figure = Figure(figsize=(9.4, 3.6), layout="constrained")
    picture, *panels = figure.subplots(1, 1 + len(_PANELS), width_ratios=[1.1, *[1] * len(_PANELS)])
    delta = evaluation.perturbation.delta
    factor = magnification(delta)
    # Of five channels or two there is no picture in colour.
    picture.imshow(draw_delta(delta if len(delta) in (1, 3) else delta.mean(0, keepdim=True), factor))
    picture.set_axis_off()
    picture.set_title(f"perturbation × {factor:.3g}", fontsize=10)
    for panel, (measure, title) in zip(panels, _PANELS.items(), strict=True):
        _draw_bars(panel, evaluation, measure)
        panel.set_title(title, fontsize=10)
    panels[-1].set_ylim(0, 1.08)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(
        plain_text(f"{evaluation.perturbation.method}, maps of {evaluation.saliency}, {evaluation.model}"), fontsize=10
    )
    return figure


def _draw_bars(panel: Axes, evaluation: Evaluation, measure: str) -> None:
    """Draw a bar for each perturbation, not clipped and clipped, its mean written above."""
    for number, (name, colour) in enumerate(_BARS):
        for place, clipped in enumerate((False, True)):
            value = evaluation.intervals(name, clipped=clipped)[measure]
            at = place + 0.38 * (number - 0.5)
            label = _LABELS[name] if place == 0 else None
            panel.bar(at, value.mean, width=0.34, color=colour, label=label)
            top = value.mean
            if value.count > 1:
                panel.plot([at, at], [value.low, value.high], color="black", linewidth=1.2)
                top = value.high
            panel.annotate(f"{value.mean:.2f}", (at, top), xytext=(0, 2), textcoords="offset points", ha="center",
                           fontsize=8)  # fmt: skip
    plain_panel(panel, "black")
    panel.grid(visible=False, axis="x")
    panel.set_xticks([0, 1], ["not clipped", "clipped"], fontsize=9)
    panel.margins(y=0.14)


_LABELS = {"universal": "universal perturbation", "random": "random directions of the same norm"}
