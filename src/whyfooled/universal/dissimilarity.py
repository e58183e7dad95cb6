"""How far two saliency maps lie apart: the measure that attacks on interpretations make large."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from whyfooled.errors import ParameterError
from whyfooled.types import Maps, PerImage

Interpretations = Float[Tensor, "n h w"]
"""Normalised saliency: one value for each pixel, none negative, with the sum 1 over an image."""


def interpretation(maps: Maps) -> Interpretations:
    """Normalise saliency maps: the sum of absolute values over channels, divided by its sum over the pixels.

    ``I(x)`` of Ehsani Oskouie & Farnia 2022, sec. 3. Differentiable.

    Parameters
    ----------
    maps
        (n,d,h,w) Saliency maps with their signs, such as gradients.

    Returns
    -------
    Tensor
        (n,h,w), none negative; each adds up to 1, or is 0 where the map is 0 everywhere.
    """
    sizes = maps.abs().sum(1)
    total = sizes.sum((1, 2), keepdim=True)
    return sizes / total.masked_fill(total == 0, 1)


def dissimilarity(maps: Maps, others: Maps) -> PerImage:
    """Return (n,) ``D = ‖I − I'‖₂ / ‖I‖₂`` of the `interpretation` of maps and of others: 0 for equal ones.

    Ehsani Oskouie & Farnia 2022, sec. 3. The first maps are the clean image's. D has no upper bound, but independent
    maps of equal kind have about √2 times what they vary. Differentiable; NaN where the first map is 0 everywhere.

    Parameters
    ----------
    maps, others
        (n,d,h,w) Saliency maps of the images as they were, and as they are now.

    Raises
    ------
    ParameterError
        If the shapes differ.
    """
    if maps.shape != others.shape:
        raise ParameterError(f"`others` must have the shape of `maps`, {tuple(maps.shape)}; got {tuple(others.shape)}.")
    return distance(interpretation(maps), interpretation(others))


def distance(first: Interpretations, second: Interpretations) -> PerImage:
    """Return (n,) the `dissimilarity` of maps that are normalised already."""
    size = first.flatten(1).norm(dim=1)
    apart: Tensor = (first - second).flatten(1).norm(dim=1) / size.masked_fill(size == 0, torch.nan)
    return apart
