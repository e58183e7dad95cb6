"""What an attack that knows the explanation wants it to look like."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from whyfooled.attacks._problem import Problem
from whyfooled.attacks._shown import Shown
from whyfooled.errors import bad_parameter, did_you_mean
from whyfooled.images import read_photograph, to_tensor
from whyfooled.saliency.interpretations import interpretation

CLEAN, SQUARE = "clean", "square"
Decoy = str | Tensor
"""``"clean"``, ``"square"``, the path of a picture, or a map: (h,w), or (n,h,w) with one for each image."""

_PARTS = 4
"""A square takes this part of a side. [ours]"""


def check_decoy(decoy: Decoy) -> None:
    """Raise `ParameterError` for a decoy that cannot be one, whatever the images are."""
    if isinstance(decoy, Tensor):
        if decoy.ndim not in (2, 3):
            raise bad_parameter("decoy", "must be a map of the shape (h, w) or (n, h, w)", tuple(decoy.shape))
        flat = decoy.flatten(-2)
        if not (flat.isfinite().all() and (flat >= 0).all() and flat.any(-1).all()):
            raise bad_parameter("decoy", "must be finite, none negative, none 0 everywhere", "other values")
    elif decoy not in (CLEAN, SQUARE) and not Path(decoy).is_file():
        rule = f"must be {CLEAN}, {SQUARE}, a map, or a picture that is there"
        raise bad_parameter("decoy", rule, repr(decoy), did_you_mean(str(decoy), (CLEAN, SQUARE)))


def draw_decoy(decoy: Decoy, problem: Problem) -> Shown:
    """Make the decoy of each image, (n,1,1,h,w), normalised as maps are; not for ``"clean"``, which maps make.

    A square is white on black in the upper left corner. A picture is brought to the images' size, its proportions lost,
    and is as salient as it is bright.

    Raises
    ------
    ParameterError
        If a map has another size than the images, or there is not one for each of them.
    ImageError
        If a picture cannot be read.
    """
    height, width = problem.images.shape[-2:]
    if isinstance(decoy, Tensor):
        maps = _choose_rows(decoy, problem)
    elif decoy == SQUARE:
        side = max(1, min(height, width) // _PARTS)
        maps = problem.images.new_zeros(1, height, width)
        maps[:, :side, :side] = 1
    else:
        picture = to_tensor(read_photograph(decoy), 1).unsqueeze(0)
        maps = F.interpolate(picture, (height, width), mode="bilinear", antialias=True)[0]
        if not maps.any():
            raise bad_parameter("decoy", "must not be black everywhere", repr(decoy))
    maps = maps.to(problem.images).expand(len(problem), height, width)
    return interpretation(maps.unsqueeze(1))[:, None, None]


def _choose_rows(decoy: Tensor, problem: Problem) -> Tensor:
    size = tuple(problem.images.shape[-2:])
    if tuple(decoy.shape[-2:]) != size:
        raise bad_parameter("decoy", f"must have the size of the images, {size}", tuple(decoy.shape[-2:]))
    if decoy.ndim == 2:
        return decoy.unsqueeze(0)
    last = int(problem.numbers.max())
    if len(decoy) <= last:
        rule = f"must have a map for each image, or be one for all; there are {last + 1} images"
        raise bad_parameter("decoy", rule, len(decoy))
    return decoy.to(problem.numbers.device)[problem.numbers]
