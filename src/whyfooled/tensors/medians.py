"""A median filter: what small perturbations, of single pixels above all, do not survive."""

from __future__ import annotations

import torch
from torch import Tensor

from whyfooled.types import Images


def filter_median(images: Images, size: int) -> Images:
    """Take the median of a square window around each pixel, channel by channel; it can be differentiated.

    The image is continued by its mirror image, the edge included. A window of an even size reaches one pixel farther up
    and to the left, and of an even number of values the upper of the two in the middle is taken: as SciPy's
    ``median_filter`` does, with which feature squeezing was published (Xu, Evans, Qi 2018, arXiv 1704.01155).
    """
    for axis in (2, 3):
        images = _mirror(images, axis, size // 2, size - 1 - size // 2)
    windows = images.unfold(2, size, 1).unfold(3, size, 1).flatten(4)
    medians: Tensor = windows.sort(dim=-1).values[..., size * size // 2]
    return medians


def _mirror(images: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Continue images along an axis: …c b a | a b c … c b a | a b c…, as often as it takes."""
    side = images.shape[axis]
    place = torch.arange(-before, side + after, device=images.device) % (2 * side)
    return images.index_select(axis, torch.minimum(place, 2 * side - 1 - place))
