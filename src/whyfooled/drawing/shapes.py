"""The exact outlines of regions of pixels, for drawings that are made of lines: every corner of every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int
from scipy.ndimage import distance_transform_edt, find_objects

Loop = list[tuple[int, int]]
"""The corners (x, y) of a closed line whose sides are horizontal and vertical by turns."""


def trace_regions(labels: Int[np.ndarray, "h w"], regions: Sequence[int]) -> list[list[Loop]]:
    """Trace the outlines of some regions of a label map, numbered from 0: of each one loop, or several."""
    boxes = find_objects(labels + 1)
    traced: list[list[Loop]] = []
    for region in regions:
        box = boxes[region] if region < len(boxes) else None
        if box is None:
            traced.append([])
            continue
        loops = trace_mask(labels[box] == region)
        rows, columns = box
        traced.append([[(x + columns.start, y + rows.start) for x, y in loop] for loop in loops])
    return traced


def place_labels(labels: Int[np.ndarray, "h w"], regions: Sequence[int]) -> list[tuple[float, float]]:
    """Find where (x, y) a number is best written on each region: inside, as far from its outline as can be."""
    boxes = find_objects(labels + 1)
    return [_find_middle(labels[boxes[region]] == region, boxes[region]) for region in regions]


def _find_middle(mask: Bool[np.ndarray, "h w"], box: tuple[slice, slice]) -> tuple[float, float]:
    depths = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    deepest = np.argwhere(depths == depths.max())
    middle = (deepest.min(0) + deepest.max(0)) / 2
    # Between the deepest pixels of a region that is bent, or has several parts, there may be others.
    if not mask[tuple(middle.astype(int))]:
        middle = deepest[0]
    rows, columns = box
    return float(middle[1] + columns.start + 0.5), float(middle[0] + rows.start + 0.5)


def trace_mask(mask: Bool[np.ndarray, "h w"]) -> list[Loop]:
    """Trace the outlines of a mask, along the edges of its pixels; of holes too."""
    following = _list_edges(mask)
    loops = []
    while following:
        start = next(iter(following))
        corners, at, before = [], start, None
        while True:
            ends = following[at]
            # Where two pixels touch at a corner alone, the line that came straight turns.
            end = ends.pop() if before is None else ends.pop(_choose_turn(before, at, ends))
            if not ends:
                del following[at]
            corners.append(at)
            before, at = at, end
            if at == start:
                break
        loops.append(_drop_straight(corners))
    return loops


Point = tuple[int, int]


def _list_edges(mask: np.ndarray) -> dict[Point, list[Point]]:
    """List, for every corner, where the sides of pixels that begin there end; what is inside is at their right."""
    inside = np.pad(mask, 1)
    core = inside[1:-1, 1:-1]
    sides = (
        (core & ~inside[:-2, 1:-1], (0, 0), (1, 0)),
        (core & ~inside[1:-1, 2:], (1, 0), (1, 1)),
        (core & ~inside[2:, 1:-1], (1, 1), (0, 1)),
        (core & ~inside[1:-1, :-2], (0, 1), (0, 0)),
    )
    following: dict[Point, list[Point]] = {}
    for there, (x0, y0), (x1, y1) in sides:
        for y, x in np.argwhere(there).tolist():
            following.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    return following


def _choose_turn(before: Point, at: Point, ends: list[Point]) -> int:
    """Choose the side that turns right, of two that begin at a corner."""
    dx, dy = at[0] - before[0], at[1] - before[1]
    right = (at[0] - dy, at[1] + dx)
    return ends.index(right) if right in ends else 0


def _drop_straight(corners: Loop) -> Loop:
    """Leave out corners between two sides of one direction."""
    kept = []
    for (x0, y0), (x1, y1), (x2, y2) in zip(
        [corners[-1], *corners[:-1]], corners, [*corners[1:], corners[0]], strict=True
    ):
        if (x1 - x0) * (y2 - y1) != (y1 - y0) * (x2 - x1):
            kept.append((x1, y1))
    return kept


def write_path(loops: Sequence[Loop]) -> str:
    """Write loops as the ``d`` of an SVG path."""
    return "".join(_write_loop(loop) for loop in loops)


def _write_loop(loop: Loop) -> str:
    (x, y), *rest = loop
    steps = [f"M{x} {y}"]
    for next_x, next_y in rest:
        steps.append(f"h{next_x - x}" if next_y == y else f"v{next_y - y}")
        x, y = next_x, next_y
    return "".join([*steps, "z"])
