"""Outlines over pictures, as SVG paths: of the area in which a unit is active, and of what a concept's mask shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from jaxtyping import Bool, Float
from skimage.measure import find_contours
from torch import Tensor

GRID = 80
"""Places on the longer side at which an enlarged map is looked at, if it has no more itself. [ours]"""
BOX = 400
"""The longer side of what the paths are drawn in."""

_SLACK = 0.15
_ROUNDS = 6


def choose_box(size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width that paths are drawn in, over a picture of this height and width."""
    height, width = size
    return round(BOX * height / max(size)), round(BOX * width / max(size))


def enlarge(excess: Float[Tensor, "n h w"], size: Sequence[int]) -> Float[Tensor, "n p q"]:
    """Enlarge maps, less their units' thresholds, as a dissection does: bilinearly, pixel centres matched."""
    return F.interpolate(excess.float().unsqueeze(0), size=tuple(size), mode="bilinear", align_corners=False)[0]


def outline_levels(excess: Float[Tensor, "n h w"], box: tuple[int, int]) -> list[str]:
    """Outline where maps, less their units' thresholds and enlarged bilinearly, are above 0: as a dissection counts.

    Parameters
    ----------
    excess
        (n,h,w) The maps, less the thresholds.
    box
        Height and width to draw in.

    Returns
    -------
    list of str
        For each map the ``d`` of an SVG path, every part of it closed; "" where nothing is above 0.
    """
    size = [side * -(-GRID // max(excess.shape[1:])) for side in excess.shape[1:]]
    pairs = zip(enlarge(excess, size), _active(excess), strict=True)
    return [_write_path(one.numpy(), box) if active else "" for one, active in pairs]


def _active(excess: Tensor) -> list[bool]:
    active: list[bool] = (excess.flatten(1).amax(1) > 0).tolist()
    return active


def outline_mask(mask: Bool[Tensor, "h w"], box: tuple[int, int]) -> str:
    """Outline a mask, at the precision of `GRID`: "" for one that is empty, or full."""
    if not mask.any() or mask.all():
        return ""
    longer = max(mask.shape)
    if longer > GRID:
        size = [max(1, round(side * GRID / longer)) for side in mask.shape]
        mask = F.interpolate(mask[None, None].float(), size=size, mode="area")[0, 0] >= 0.5
    return _write_path(mask.float().numpy() * 2 - 1, box)


def _write_path(values: np.ndarray, box: tuple[int, int]) -> str:
    """Write the contours of the level 0 as an SVG path."""
    # A frame that falls to the same below 0 closes contours at the picture's edge, and exactly there.
    framed = np.pad(values, 1, mode="edge")
    for side in (framed[0], framed[-1], framed[:, 0], framed[:, -1]):
        side[...] = -np.abs(side)
    scale = np.array(box) / values.shape
    parts = []
    for contour in find_contours(framed, 0.0):
        corners = np.rint((_thin(contour[:-1]) - 0.5) * scale).astype(int)
        if len(corners) > 2:
            parts.append(_written(corners))
    return "".join(parts)


def _thin(points: np.ndarray) -> np.ndarray:
    """Leave out points of a closed line that lie almost on the line between their neighbours."""
    for number in range(_ROUNDS):
        if len(points) < 5:
            break
        before, after = np.roll(points, 1, 0), np.roll(points, -1, 0)
        along, off = after - before, points - before
        area = np.abs(along[:, 0] * off[:, 1] - along[:, 1] * off[:, 0])
        near = area < _SLACK * np.hypot(along[:, 0], along[:, 1])
        # Every other one, so that no two neighbours go at once; the last and the first may be neighbours of a kind.
        near[(number + 1) % 2 :: 2] = False
        near[-1] = False
        points = points[~near]
    return points


def _written(corners: np.ndarray) -> str:
    steps = np.diff(corners, axis=0)
    y, x = corners[0]
    return f"M{x} {y}l{_pairs(steps)}z"


def _pairs(steps: Sequence[Sequence[int]] | np.ndarray) -> str:
    text = " ".join(f"{x} {y}" for y, x in steps if x or y)
    return text.replace(" -", "-")
