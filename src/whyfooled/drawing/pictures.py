"""Pictures of images, perturbations and saliency maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import matplotlib
import numpy as np
import torch
from matplotlib.colors import Colormap, ListedColormap
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.images import PICTURE_CHANNELS, to_picture
from whyfooled.types import Image

SHOWN = 0.995
"""Quantile of a row's values that the end of its colour scale stands for; stronger ones look the same. [ours]"""


_LIFT = 0.5
"""Exponent that lifts weak values of a map, which would not be told from none."""


def _lift_colours(name: str, lowest: float) -> Colormap:
    """Make a colour map that begins above its black end, and gives weak values more of its colours.

    Most values of a gradient's map are weak: on colours from black on, such a map is a dark square, on a dark page more
    than on a white one. The colours still rise in lightness all the way.
    """
    places = lowest + (1 - lowest) * np.linspace(0, 1, 256) ** _LIFT
    return ListedColormap(matplotlib.colormaps[name](places), name=f"{name}, lifted")


_LIFTED = _lift_colours("inferno", 0.2)


@final
@dataclass(frozen=True)
class Scale:
    """The one colour scale of a row of maps.

    Parameters
    ----------
    end
        The value at the end of the scale.
    signed
        Whether the scale goes from ``-end`` to ``end``, or from 0.
    """

    end: float
    signed: bool

    @property
    def colours(self) -> Colormap:
        """The colours from one end of the scale to the other."""
        return matplotlib.colormaps["RdBu_r"] if self.signed else _LIFTED


def scale_of(maps: Tensor) -> Scale:
    """Choose a scale for maps (…,c,h,w) that are shown side by side."""
    saliency = maps.sum(-3)
    end = float(saliency.abs().flatten().quantile(SHOWN, interpolation="higher")) or float(saliency.abs().max())
    return Scale(end or 1.0, bool((saliency < 0).any()))


def draw_map(saliency: Image, scale: Scale) -> PILImage.Image:
    """Draw a saliency map (c,h,w), summed over its channels."""
    return scaled_picture(saliency.sum(0).double() / scale.end, scale)


def scaled_picture(values: Tensor, scale: Scale) -> PILImage.Image:
    """Draw values (h,w) that are divided by the end of their scale already."""
    place = (values + 1) / 2 if scale.signed else values
    colours = scale.colours(place.clamp(0, 1).numpy(), bytes=True)
    return PILImage.fromarray(colours[..., :3].copy())


def magnification(delta: Image) -> float:
    """Return by how much a perturbation can be magnified around mid-grey, to two digits; 1 for none.

    One value in 200 may go beyond black or white: a few strong pixels would hide all others.
    """
    reach = float(delta.abs().flatten().quantile(SHOWN, interpolation="higher")) or float(delta.abs().max())
    if reach == 0:
        return 1.0
    exact = 0.5 / reach
    step = 10.0 ** (math.floor(math.log10(exact)) - 1)
    return max(1.0, math.floor(exact / step) * step)


def draw_delta(delta: Image, factor: float) -> PILImage.Image:
    """Draw a perturbation magnified around mid-grey.

    Where it has another number of channels than pictures have, of each pixel the channel that changes most: the mean
    would hide what goes up in one and down in another.
    """
    if len(delta) not in PICTURE_CHANNELS:
        delta = delta.gather(0, delta.abs().argmax(0, keepdim=True))
    return to_picture(torch.clamp(0.5 + factor * delta, 0, 1))


_NEGATIVE, _POSITIVE = (43, 123, 200), (222, 52, 42)


def draw_signed_layer(values: Tensor, end: float) -> PILImage.Image:
    """Draw values (h,w) as a layer: red where they are positive, blue where negative, the more opaque the larger.

    On a white page it is what a map from blue over white to red is, and on a dark one, where it is laid on grey, it
    neither glares nor goes under.
    """
    strength = (values.abs().double() / end).clamp(0, 1).pow(_LIFT)
    signs = (values > 0).unsqueeze(2)
    colour = torch.where(signs, torch.tensor(_POSITIVE), torch.tensor(_NEGATIVE))
    layer = torch.cat([colour, (255 * strength).round().unsqueeze(2)], dim=2).to(torch.uint8)
    # What cannot be seen has one colour, which takes less room.
    layer[layer[..., 3] == 0] = 0
    return PILImage.fromarray(layer.cpu().numpy(), "RGBA")


def draw_heat(sizes: Tensor, end: float, image: Image) -> PILImage.Image:
    """Draw sizes (h,w), from 0 to an end, as heat over an image (c,h,w) in dark grey.

    The greatest heat is orange: a perturbation of many pixels in yellow and white would glare, and hide the photograph.
    """
    strength = (sizes.double() / end).clamp(0, 1)
    colours = torch.from_numpy(matplotlib.colormaps["inferno"](0.35 + 0.4 * strength.numpy())[..., :3].copy())
    cover = _COVER * strength.pow(0.8).unsqueeze(2)
    grey = _DIMMED * image.double().mean(0).clamp(0, 1).unsqueeze(2)
    return PILImage.fromarray((255 * ((1 - cover) * grey + cover * colours)).round().to(torch.uint8).numpy())


_DIMMED, _COVER = 0.6, 0.7
"""How much of a photograph's light is left below heat, and how much of it the greatest heat covers."""
