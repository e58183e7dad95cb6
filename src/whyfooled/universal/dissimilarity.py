"""How far two saliency maps lie apart: the measure that attacks on interpretations make large."""

from __future__ import annotations

import torch
from torch import Tensor

from whyfooled.errors import ParameterError
from whyfooled.saliency.interpretations import Interpretations, interpretation
from whyfooled.types import Maps, PerImage


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
