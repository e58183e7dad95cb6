import re

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path

from whyfooled.drawing.outlines import BOX, choose_box, outline_levels, outline_mask


def parts_of(d):
    """Read an SVG path of closed parts, each a start and steps."""
    for start, steps in re.findall(r"M([^l]*)l([^z]*)z", d):
        numbers = [np.array(re.findall(r"-?\d+", text), dtype=float).reshape(-1, 2) for text in (start, steps)]
        yield np.cumsum(np.concatenate(numbers), axis=0)


def inside(d, box, size):
    """Tell which of the places of a grid are inside of a path, by the even-odd rule."""
    y, x = np.mgrid[: size[0], : size[1]]
    points = np.stack([(x.ravel() + 0.5) * box[1] / size[1], (y.ravel() + 0.5) * box[0] / size[0]], axis=1)
    found = np.zeros(len(points), dtype=bool)
    for corners in parts_of(d):
        found ^= Path(np.concatenate([corners, corners[:1]])).contains_points(points)
    return found.reshape(size)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(7, 7), (4, 9), (28, 28), (2, 2)]))
def test_what_is_inside_is_what_the_tally_counts(seed, size):
    excess = torch.rand(2, *size, generator=torch.Generator().manual_seed(seed)) - 0.7
    box = choose_box(size)
    paths = outline_levels(excess, box)
    times = max(1, 90 // max(size))
    seen = (times * size[0], times * size[1])
    values = F.interpolate(excess[None], size=seen, mode="bilinear", align_corners=False)[0].numpy()
    for path, value in zip(paths, values, strict=True):
        wrong = inside(path, box, seen) != (value > 0)
        # Only at the very edge: places that are within a fraction of a place of the level.
        steepest = max(np.abs(np.diff(value, axis=axis)).max() for axis in (0, 1))
        assert not (wrong & (np.abs(value) > 1.2 * steepest)).any()
        assert wrong.mean() < 0.04


def test_a_map_above_its_threshold_everywhere_is_outlined_at_the_edge():
    (path,) = outline_levels(torch.ones(1, 7, 7), (BOX, BOX))
    (corners,) = parts_of(path)
    assert corners.min() == 0
    assert corners.max() == BOX
    assert inside(path, (BOX, BOX), (50, 50)).all()


def test_what_is_nowhere_above_has_no_outline_and_a_plateau_at_the_threshold_neither():
    excess = torch.zeros(2, 5, 5)
    excess[1] -= 1
    assert outline_levels(excess, (BOX, BOX)) == ["", ""]


def test_a_hole_is_a_part_of_its_own():
    excess = torch.ones(1, 9, 9)
    excess[0, 3:6, 3:6] = -5
    (path,) = outline_levels(excess, (BOX, BOX))
    assert path.count("M") == 2
    found = inside(path, (BOX, BOX), (40, 40))
    assert found[2, 2]
    assert not found[20, 20]


def test_a_mask_is_outlined_along_its_pixels():
    mask = torch.zeros(8, 16, dtype=torch.bool)
    mask[2:4, 4:12] = True
    found = inside(outline_mask(mask, (200, 400)), (200, 400), (80, 160))
    expected = mask.repeat_interleave(10, 0).repeat_interleave(10, 1).numpy()
    # Corners are cut.
    assert (found != expected).mean() < 0.02


def test_a_large_mask_is_outlined_coarsely_and_none_for_nothing_and_everything():
    mask = torch.zeros(300, 400, dtype=torch.bool)
    assert outline_mask(mask, (300, 400)) == ""
    assert outline_mask(~mask, (300, 400)) == ""
    mask[:, 200:] = True
    found = inside(outline_mask(mask, (300, 400)), (300, 400), (30, 40))
    assert (found == mask[5::10, 5::10].numpy()).all()
