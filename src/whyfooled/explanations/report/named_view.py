"""Regions with names in a picture: outlined over the photograph in grey, each in a colour of its own."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch

from whyfooled.drawing.shapes import trace_regions
from whyfooled.drawing.style import PANEL_SIZE, TEXT_SIZE, wrap_text
from whyfooled.drawing.words import shortened
from whyfooled.explanations.report.region_picture import draw_grey, join_loops
from whyfooled.perturbation.named_effect import NamedEffect
from whyfooled.types import Image

_COLOURS = ("#56b4e9", "#e8701a", "#f0e442", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#ffffff")
"""Okabe and Ito's, but for black, which photographs have themselves."""

MOST_OUTLINED = len(_COLOURS)
"""How many regions are outlined, the largest: more could not be told apart."""


def draw_named(named: NamedEffect, image: Image, ink: str = "black") -> Figure:
    """Draw the regions over an image (c,h,w) in grey, with a legend of their names and how dense the perturbation is.

    Parameters
    ----------
    named
        What the perturbation does on them.
    image
        The image before.
    ink
        Colour of the text.
    """
    height, width = image.shape[1:]
    largest = named.area.argsort(descending=True)[:MOST_OUTLINED].tolist()
    side = PANEL_SIZE[0]
    figure = Figure(figsize=(side, side * height / width + 0.38 * len(largest) + 0.2), layout="constrained")
    panel = figure.subplots()
    grey = np.asarray(draw_grey(image))
    panel.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="none")
    panel.set_axis_off()
    handles: list[Line2D] = []
    for number, loops in zip(largest, trace_regions(named.labels.numpy(), largest), strict=True):
        colour = _COLOURS[len(handles)]
        outline = join_loops(loops)
        panel.add_patch(PathPatch(outline, facecolor=colour, alpha=0.15, linewidth=0))
        panel.add_patch(PathPatch(outline, fill=False, edgecolor=colour, linewidth=1.6))
        share = f"{100 * named.energy[number]:.0f} % of ‖δ‖² on {100 * named.area[number]:.0f} % of the pixels"
        label = f"{wrap_text(shortened(named.names[number], 32), 34)}:\n{share}"
        handles.append(Line2D([], [], color=colour, linewidth=3, label=label))
    figure.legend(handles=handles, loc="outside lower left", frameon=False, labelcolor=ink, fontsize=TEXT_SIZE)
    return figure
