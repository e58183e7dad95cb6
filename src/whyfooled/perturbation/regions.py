"""Regions: the parts of an image that a perturbation's effect is told apart by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from whyfooled.errors import at_least, bad_parameter
from whyfooled.saliency.lime import make_superpixels
from whyfooled.types import Images

Labels = Int[Tensor, "n h w"]
"""The region of every pixel, numbered from 0."""

PerRegion = Float[Tensor, "n r"]
"""One number for each region of each image."""


@final
@dataclass(frozen=True)
class Grid:
    """Square cells, numbered row by row (Xu et al. 2019); the last row and column may be smaller.

    Parameters
    ----------
    cell
        Side of a cell, in pixels; if None, 13 of every 224 pixels of the image's shorter side, rounded: 13 for those of
        ImageNet's size and 2 for CIFAR's, as in the paper.
    """

    cell: int | None = None

    def __post_init__(self) -> None:
        if self.cell is not None:
            at_least("cell", self.cell, 1)

    def __call__(self, images: Images) -> Labels:
        """Return (n,h,w) the cell of every pixel.

        Raises
        ------
        ParameterError
            If a cell is larger than the images.
        """
        n, _, height, width = images.shape
        shorter = min(height, width)
        cell = max(1, round(shorter * 13 / 224)) if self.cell is None else self.cell
        if cell > shorter:
            fix = "Take 13 for images of 224 pixels, 2 for 32."
            raise bad_parameter("cell", f"must fit into the image of {height} × {width} pixels", cell, fix)
        rows, columns = (torch.arange(side, device=images.device) // cell for side in (height, width))
        return (rows.unsqueeze(1) * (int(columns[-1]) + 1) + columns).expand(n, -1, -1)


@final
@dataclass(frozen=True)
class Superpixels:
    """Superpixels of each clean image, by SLIC (Achanta et al. 2012) with zero parameters.

    Parameters
    ----------
    count
        About how many. [ours]
    """

    count: int = 200

    def __post_init__(self) -> None:
        at_least("count", self.count, 2)

    def __call__(self, images: Images) -> Labels:
        """Return (n,h,w) the superpixel of every pixel."""
        most = images[0, 0].numel() // _FEWEST_PIXELS if len(images) else self.count
        if self.count > most:
            fix = f"A superpixel is to have {_FEWEST_PIXELS} pixels at least."
            raise bad_parameter("count", f"must be at most {most} superpixels for these images", self.count, fix)
        labels = torch.zeros_like(images[:, 0], dtype=torch.int64)
        for number, image in enumerate(images):
            labels[number] = make_superpixels(image, self.count)
        return labels


_FEWEST_PIXELS = 4

Regions = Grid | Superpixels | Integer[Tensor, "h w"] | Integer[Tensor, "n h w"]
"""How images are divided: by a rule, or by the region of every pixel, one map for all images or one for each."""


def region_labels(regions: Regions, images: Images) -> Labels:
    """Divide images into regions.

    Parameters
    ----------
    regions
        A `Grid`, `Superpixels`, or label maps (h,w) or (n,h,w), numbered from 0; numbers may be left out.
    images
        (n,c,h,w) The clean images.

    Returns
    -------
    Tensor
        (n,h,w), int64, on the images' device.

    Raises
    ------
    ParameterError
        If a cell is larger than the images, or label maps have another size or numbers that are no regions.
    """
    if isinstance(regions, Grid | Superpixels):
        return regions(images)
    if not isinstance(regions, Tensor):
        rule = "must be a Grid, Superpixels, or a tensor with the number of every pixel's region"
        raise bad_parameter("regions", rule, type(regions).__name__)
    n, _, height, width = images.shape
    if tuple(regions.shape) not in {(height, width), (n, height, width)}:
        rule = f"must have the shape {(height, width)}, or {(n, height, width)} for parts of its own for each image"
        raise bad_parameter("regions", rule, tuple(regions.shape))
    labels = regions.to(images.device, torch.int64)
    least, most = (int(labels.min()), int(labels.max())) if labels.numel() else (0, 0)
    if regions.is_floating_point() or least < 0 or most >= height * width:
        fix = "Number the regions from 0."
        given = f"{regions.dtype}, from {least} to {most}"
        raise bad_parameter("regions", f"must be whole numbers from 0 to {height * width - 1}", given, fix)
    return labels.expand(n, -1, -1)


def region_count(labels: Labels) -> int:
    """Return how many regions there are, over all images."""
    return int(labels.max()) + 1 if labels.numel() else 0


def region_sums(values: Float[Tensor, "n h w"], labels: Labels) -> PerRegion:
    """Sum (n,r) a number of each pixel over each region; 0 where an image has no such region."""
    zeros = values.new_zeros(len(values), region_count(labels))
    return zeros.scatter_add_(1, labels.flatten(1), values.flatten(1))


def region_norms(delta: Images, labels: Labels) -> tuple[PerRegion, PerRegion]:
    """Measure (n,r) the ℓ2 and (n,r) the ℓ∞ norm of a perturbation in each region, all channels together."""
    squares = region_sums(delta.double().square().sum(1), labels)
    largest = delta.new_zeros(squares.shape)
    largest = largest.scatter_reduce_(1, labels.flatten(1), delta.abs().amax(1).flatten(1), "amax")
    return squares.sqrt().to(delta.dtype), largest
