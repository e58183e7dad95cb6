"""What a pixel becomes when it is taken away: black, its image's mean colour, noise, or its blurred surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from whyfooled.tensors.randomness import uniform
from whyfooled.types import Images

Fill = Literal["zero", "mean", "noise", "blur"]
FILLS: tuple[Fill, ...] = ("zero", "mean", "noise", "blur")


def filled(images: Images, fill: Fill, generators: Sequence[torch.Generator] = ()) -> Images:
    """Make the images that hidden pixels are taken from.

    Parameters
    ----------
    images
        (n,c,h,w), values in [0, 1].
    fill
        ``"zero"`` (black), ``"mean"`` (of the image, for each channel), ``"noise"`` (uniform in [0, 1]) or ``"blur"``
        (the image blurred; σ = 5 % of its shorter side).
    generators
        One for each image, for the noise; needed for nothing else.

    Returns
    -------
    Tensor
        (n,c,h,w), values in [0, 1].
    """
    if fill == "zero":
        return torch.zeros_like(images)
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if fill == "noise":
        return uniform(images, list(generators))
    return blurred(images, sigma=0.05 * min(images.shape[-2:]))


def blurred(images: Images, sigma: float) -> Images:
    """Blur with a Gaussian of standard deviation `sigma` in pixels; values at the border are mirrored."""
    # One dimension after the other: a square kernel of this width costs 30 times as much.
    reach = min(round(3 * sigma), min(images.shape[-2:]) - 1)
    distance = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.softmax(-(distance**2) / (2 * sigma**2), dim=0)
    channels = images.shape[1]
    for kernel, padding in (
        (weights.view(1, 1, 1, -1), (reach, reach, 0, 0)),
        (weights.view(1, 1, -1, 1), (0, 0, reach, reach)),
    ):
        padded = F.pad(images, padding, mode="reflect")
        images = F.conv2d(padded, kernel.expand(channels, -1, -1, -1), groups=channels)
    return images.clamp(0, 1)
