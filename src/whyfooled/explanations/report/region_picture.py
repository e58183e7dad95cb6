"""Regions drawn over an image: where the perturbation holds the true class down, and where it lifts the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import matplotlib
import torch
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.drawing.pictures import Scale
from whyfooled.perturbation import KINDS, Sensitivity
from whyfooled.types import Image, Map

Colour = tuple[float, float, float]


@final
@dataclass(frozen=True)
class Palette:
    """The colours of the kinds of regions, and what they are drawn on.

    Parameters
    ----------
    suppression, promotion, balanced
        Red, green and blue, from 0 to 1.
    names
        What these colours are called, in the same order.
    cam
        Name of the colour map of the class activation map below them.
    """

    suppression: Colour
    promotion: Colour
    balanced: Colour
    names: tuple[str, str, str]
    cam: str

    def of(self, kind: str) -> str:
        """Return a kind's colour as a page writes it."""
        red, green, blue = (round(255 * level) for level in getattr(self, kind))
        return f"#{red:02x}{green:02x}{blue:02x}"


PALETTES = {
    "paper": Palette((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.5, 0.5, 0.5), ("white", "black", "grey"), "YlOrRd"),
    # Three of Okabe and Ito's colours, on grey.
    "colour-blind": Palette(
        (0.34, 0.71, 0.91), (0.84, 0.37, 0.0), (0.94, 0.89, 0.26), ("blue", "vermilion", "yellow"), "gray"
    ),
}
"""As Xu et al. (2019, fig. 1) draw them; and one that does not need colour vision to be read."""

_PHOTOGRAPH = 0.45
"""How much of the photograph's grey shows through the class activation map."""
_FAINTEST, _STRONGEST = 0.3, 0.95
"""How opaque the weakest and the strongest regions are."""


def draw_regions(
    sensitivity: Sensitivity, image: Image, cam: Map | None, scale: Scale | None, palette: Palette
) -> PILImage.Image:
    """Draw the regions that are not inert over an image (c,h,w) and its class activation map (1,h,w), if there is one.

    The larger a region's score, the more opaque it is.
    """
    grey = image.mean(0).clamp(0, 1).unsqueeze(2).expand(-1, -1, 3)
    below = grey
    if cam is not None and scale is not None:
        heights = (cam.sum(0) / scale.end).clamp(0, 1)
        colours = torch.from_numpy(matplotlib.colormaps[palette.cam](heights.numpy())[..., :3].copy()).to(grey)
        below = _PHOTOGRAPH * grey + (1 - _PHOTOGRAPH) * colours
    kinds, scores = sensitivity.on_image(sensitivity.kind)[0], sensitivity.on_image(sensitivity.score)[0]
    strength = (scores / scores.max().clamp_min(1e-12)).sqrt()
    opacity = _FAINTEST + (_STRONGEST - _FAINTEST) * strength
    edge = _find_edges(sensitivity.labels[0])
    picture = below
    for kind in ("suppression", "promotion", "balanced"):
        inside = kinds == KINDS.index(kind)
        colour = torch.tensor(getattr(palette, kind), dtype=grey.dtype)
        covered = torch.where(inside, torch.where(edge, 1.0, opacity), 0.0).unsqueeze(2)
        picture = (1 - covered) * picture + covered * colour
    return PILImage.fromarray((picture * 255).round().to(torch.uint8).numpy())


def draw_ramp(palette: Palette) -> PILImage.Image:
    """Draw the colours of the map below the regions, from 0 to the end of its scale."""
    values = torch.linspace(0, 1, 128).expand(1, -1)
    return PILImage.fromarray(matplotlib.colormaps[palette.cam](values.numpy(), bytes=True)[..., :3].copy())


def _find_edges(labels: Tensor) -> Tensor:
    """Tell (h,w) which pixels have one of another region at their right or below them."""
    edge = torch.zeros_like(labels, dtype=torch.bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge
