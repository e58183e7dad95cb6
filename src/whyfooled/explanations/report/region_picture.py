"""Regions drawn over a photograph: where the perturbation holds the true class down, and where it lifts the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as LinePath
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.drawing.pictures import SHOWN, Scale, draw_heat
from whyfooled.drawing.shapes import Loop, trace_mask, trace_regions
from whyfooled.perturbation import KINDS, Sensitivity
from whyfooled.types import Image


@final
@dataclass(frozen=True)
class Palette:
    """The colours of the kinds of regions, as a page writes them, and what they are called.

    Parameters
    ----------
    suppression, promotion, balanced
        The colour, and its name.
    """

    suppression: tuple[str, str]
    promotion: tuple[str, str]
    balanced: tuple[str, str]

    def colour(self, kind: str) -> str:
        """Return a kind's colour."""
        colour: str = getattr(self, kind)[0]
        return colour


PALETTES = {
    # Three of Okabe and Ito's colours.
    "colour-blind": Palette(("#56b4e9", "blue"), ("#e8701a", "orange"), ("#f0e442", "yellow")),
    "paper": Palette(("#ffffff", "white"), ("#000000", "black"), ("#808080", "grey")),
}
"""One that does not need colour vision to be read, which comes first; and that of Xu et al. (2019, fig. 1)."""

DRAWN_KINDS = ("suppression", "promotion", "balanced")

MOST_DRAWN = 1000
"""How many regions are drawn at most, the strongest first: a page with more would be slow. [ours]"""

_FAINTEST, _STRONGEST = 0.05, 0.75
"""How opaque the weakest and the strongest regions are."""
_WIDTH_INCHES = 2.24


@final
@dataclass(frozen=True)
class DrawnRegion:
    """One region as it is drawn.

    Parameters
    ----------
    region
        Its number.
    kind
        What the perturbation does there, one of `KINDS`.
    opacity
        How opaque it is; 0 where it is inert.
    loops
        Its outlines.
    """

    region: int
    kind: str
    opacity: float
    loops: list[Loop]


def list_drawn_regions(sensitivity: Sensitivity) -> list[DrawnRegion]:
    """List the regions that the perturbation touches, the most sensitive first, with their outlines."""
    score, kinds = sensitivity.score[0], sensitivity.kind[0].tolist()
    touched = sensitivity.touched[0]
    order = score.argsort(descending=True, stable=True)
    order = order[touched[order]][:MOST_DRAWN]
    strength = (score / score.max().clamp_min(1e-12)).tolist()
    regions = order.tolist()
    loops = trace_regions(sensitivity.labels[0].cpu().numpy(), regions)
    return [
        DrawnRegion(
            region,
            KINDS[kinds[region]],
            0.0 if KINDS[kinds[region]] == "inert" else _FAINTEST + (_STRONGEST - _FAINTEST) * strength[region],
            outlines,
        )
        for region, outlines in zip(regions, loops, strict=True)
    ]


def trace_kinds(sensitivity: Sensitivity) -> dict[str, list[Loop]]:
    """Trace the outlines of each kind's regions, those that touch as one: of inert ones there are none."""
    kinds = sensitivity.on_image(sensitivity.kind)[0].cpu().numpy()
    # Balanced ones, which are most of all and least telling, first, so that they are below.
    return {kind: trace_mask(kinds == KINDS.index(kind)) for kind in reversed(DRAWN_KINDS)}


def draw_grey(image: Image) -> PILImage.Image:
    """Draw an image (c,h,w) in grey, as what regions are drawn on."""
    return PILImage.fromarray((255 * image.mean(0).clamp(0, 1)).round().to(torch.uint8).numpy())


def draw_regions(sensitivity: Sensitivity, image: Image, palette: Palette) -> Figure:
    """Draw the regions over an image (c,h,w) in grey, outlined by kind, the more opaque the larger the effect."""
    figure, panel = _open_picture(draw_grey(image))
    seen = [region for region in list_drawn_regions(sensitivity) if region.kind != "inert"]
    colours = [to_rgba(palette.colour(region.kind), region.opacity) for region in seen]
    filled = PathCollection([join_loops(region.loops) for region in seen], facecolors=colours, linewidths=0)
    panel.add_collection(filled, autolim=False)
    for kind, loops in trace_kinds(sensitivity).items():
        if loops:
            panel.add_patch(PathPatch(join_loops(loops), fill=False, edgecolor=palette.colour(kind), linewidth=0.7))
    return figure


def draw_sizes(delta: Image, image: Image) -> Figure:
    """Draw the size of a perturbation (c,h,w) as heat over an image."""
    sizes = measure_sizes(delta)
    return _open_picture(draw_heat(sizes, end_of_sizes(sizes), image))[0]


def draw_heat_ramp() -> PILImage.Image:
    """Draw the colours of heat, from 0 to the end of its scale, as on mid-grey."""
    return draw_heat(torch.linspace(0, 1, 128).expand(8, -1), 1.0, torch.full((1, 8, 128), 0.5))


def picture_figure(picture: PILImage.Image, scale: Scale | None = None) -> Figure:
    """Make a figure of a picture alone, in its own pixels; of a map with a scale, with a colour bar below."""
    if scale is None:
        return _open_picture(picture)[0]
    width, height = picture.size
    inches = _WIDTH_INCHES * height / width
    figure = Figure(figsize=(_WIDTH_INCHES, inches + _BAR_INCHES))
    above = inches / (inches + _BAR_INCHES)
    panel = figure.add_axes((0.0, 1 - above, 1.0, above))
    panel.imshow(np.asarray(picture), extent=(0, width, height, 0), interpolation="none")
    panel.set_axis_off()
    ticks = [-scale.end, 0.0, scale.end] if scale.signed else [0.0, scale.end]
    colours = ScalarMappable(Normalize(ticks[0], ticks[-1]), scale.colours)
    bar = figure.colorbar(
        colours, cax=figure.add_axes((0.12, 0.7 * (1 - above), 0.76, 0.22 * (1 - above))), orientation="horizontal"
    )
    bar.set_ticks(ticks)
    bar.ax.set_xticklabels([f"{tick:.2g}" for tick in ticks], fontsize=8)
    return figure


_BAR_INCHES = 0.45
"""Height of a colour bar with its numbers."""


def measure_sizes(delta: Image) -> Tensor:
    """Return (h,w) the size |δ| of a perturbation at each pixel: that of its largest channel."""
    return delta.abs().amax(0)


def end_of_sizes(sizes: Tensor) -> float:
    """Return the size that the end of the scale stands for; one pixel in 200 may be stronger."""
    end = float(sizes.flatten().quantile(SHOWN, interpolation="higher")) or float(sizes.max())
    return end or 1.0


def write_end_of_sizes(sizes: Tensor) -> str:
    """Write the size at the end of the scale, and whether there are larger ones."""
    end = end_of_sizes(sizes)
    return f"{255 * end:.2g}/255" + (" and more" if bool((sizes > end).any()) else "")


def _open_picture(picture: PILImage.Image) -> tuple[Figure, Axes]:
    width, height = picture.size
    figure = Figure(figsize=(_WIDTH_INCHES, _WIDTH_INCHES * height / width))
    panel = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    panel.imshow(np.asarray(picture), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="none")
    panel.set_axis_off()
    return figure, panel


def join_loops(loops: list[Loop]) -> LinePath:
    """Join loops into one path."""
    return LinePath.make_compound_path(*[LinePath([*loop, loop[0]], closed=True) for loop in loops])
