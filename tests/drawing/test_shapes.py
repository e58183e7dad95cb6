"""Outlines of regions are exact: filled again, they are the regions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.path import Path

from whyfooled.drawing.shapes import place_labels, trace_mask, trace_regions, write_path


def fill(loops, shape):
    """Fill loops by counting how often a line to the left crosses each, at the middle of every pixel."""
    rows, columns = np.indices(shape) + 0.5
    inside = np.zeros(shape, dtype=bool)
    for loop in loops:
        for (x0, y0), (x1, y1) in zip(loop, [*loop[1:], loop[0]], strict=True):
            assert (x0 == x1) != (y0 == y1)
            low, high = sorted((y0, y1))
            inside ^= (x0 < columns) & (low < rows) & (rows < high) & (x0 == x1)
    return inside


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_what_is_traced_is_filled_again(mask):
    assert np.array_equal(fill(trace_mask(mask), mask.shape), mask)


def test_a_hole_has_a_loop_of_its_own_and_sides_turn():
    mask = np.ones((5, 6), dtype=bool)
    mask[1:4, 2:4] = False
    outer, hole = sorted(trace_mask(mask), key=min)
    assert sorted(outer) == [(0, 0), (0, 5), (6, 0), (6, 5)]
    assert sorted(hole) == [(2, 1), (2, 4), (4, 1), (4, 4)]
    assert trace_mask(np.zeros((3, 3), dtype=bool)) == []


def test_pixels_that_touch_at_a_corner_have_loops_that_do_not_cross():
    loops = trace_mask(np.eye(3, dtype=bool))
    assert [len(loop) for loop in loops] == [4, 4, 4]


def test_regions_are_traced_where_they_are():
    labels = np.array([[0, 0, 3, 3], [0, 0, 3, 3], [5, 5, 5, 3]])
    traced = trace_regions(labels, [3, 0, 4, 5, 9])
    assert [len(loops) for loops in traced] == [1, 1, 0, 1, 0]
    for region, loops in zip((3, 0, 5), (traced[0], traced[1], traced[3]), strict=True):
        assert np.array_equal(fill(loops, labels.shape), labels == region)


@pytest.mark.parametrize("mask", [np.eye(4, dtype=bool), np.triu(np.ones((4, 5), dtype=bool))])
def test_a_path_goes_along_the_loops(mask):
    loops = trace_mask(mask)
    path = write_path(loops)
    assert path.count("M") == path.count("z") == len(loops)
    corners = sum(len(loop) for loop in loops)
    # Each corner is reached by one step but the first, where the path begins.
    assert path.count("h") + path.count("v") == corners - len(loops)
    assert Path(loops[0]).vertices.min() >= 0


def test_a_number_stands_in_the_middle_of_its_region():
    labels = np.zeros((6, 9), dtype=np.int64)
    labels[1:4, 2:5] = 1
    labels[0:2, 5:9] = 2
    # The middles of a square of three pixels, and of two rows of four, whose pixels all touch the outline.
    assert place_labels(labels, [2, 1]) == [(7.0, 1.0), (3.5, 2.5)]


@pytest.mark.parametrize("rows", [["###", "#..", "#.."], ["#.#"], ["####", "#..#", "####"]])
def test_a_number_stands_inside_whatever_a_region_s_shape(rows):
    mask = np.array([[letter == "#" for letter in row] for row in rows])
    ((x, y),) = place_labels(np.where(mask, 0, 1), [0])
    assert mask[int(y), int(x)]
