"""Which axes of an output are which: turning it, and telling it from where values come from."""

import pytest
import torch

from whyfooled.classifier.axes import CHANNELS_FIRST, Axes, read_axes
from whyfooled.classifier.origins import NOWHERE, Origin

GRID = torch.arange(2 * 5 * 3 * 4, dtype=torch.float64).view(2, 5, 3, 4)
"""(n, channels, rows, columns)."""

LAID_OUT = {
    "channels first": (CHANNELS_FIRST, GRID),
    "channels last": (Axes(3, 1, 2), GRID.permute(0, 2, 3, 1)),
    "transposed": (Axes(1, 3, 2), GRID.transpose(2, 3)),
    "columns first": (Axes(2, 3, 1), GRID.permute(0, 3, 1, 2)),
    "upside down": (Axes(1, 2, 3, (2,)), GRID.flip(2)),
    "turned round, channels last": (Axes(3, 1, 2, (1, 2)), GRID.flip(2, 3).permute(0, 2, 3, 1)),
}


@pytest.mark.parametrize(("axes", "output"), LAID_OUT.values(), ids=LAID_OUT.keys())
def test_an_output_is_turned(axes, output):
    assert torch.equal(axes.to_grid(output), GRID)
    assert axes.size(tuple(output.shape[1:])) == (3, 4)


def test_channels_that_come_first_are_left_as_they_are():
    assert CHANNELS_FIRST.to_grid(GRID) is GRID


TOKENS = ((2, 4), (3, 5), (6, 0))
"""A class token and no place for it: number 1. The others stand column by column at first, and then in no order."""


@pytest.mark.parametrize("axis", [1, 2])
def test_tokens_are_put_on_their_places_and_the_others_are_left_out(axis):
    output = torch.rand(2, 7, 5, dtype=torch.float64) if axis == 1 else torch.rand(2, 5, 7, dtype=torch.float64)
    axes = Axes(3 - axis, axis, axis, tokens=TOKENS)
    grid = axes.to_grid(output)
    assert grid.shape == (2, 5, 3, 2)
    assert axes.size(tuple(output.shape[1:])) == (3, 2)
    for row, numbers in enumerate(TOKENS):
        for column, number in enumerate(numbers):
            assert torch.equal(grid[:, :, row, column], output.select(axis, number))
    assert not axes.places_all(tuple(output.shape))
    assert axes.places_all(tuple(output.narrow(axis, 0, 6).shape))


ALL = {**LAID_OUT, "tokens": (Axes(2, 1, 1, tokens=TOKENS), torch.rand(2, 7, 5, dtype=torch.float64))}


@pytest.mark.parametrize(("axes", "output"), ALL.values(), ids=ALL.keys())
def test_turning_can_be_differentiated(axes, output):
    leaf = output.clone().requires_grad_()
    grid = axes.to_grid(leaf)
    weights = torch.rand_like(grid)
    (slope,) = torch.autograd.grad((grid * weights).sum(), leaf)
    assert torch.equal(axes.to_grid(slope), weights)


def coordinates(*shape, axis, values=None):
    """Make the coordinates of a tensor that goes along one axis."""
    line = torch.arange(shape[axis]).float() if values is None else torch.tensor(values)
    return line.view(*(-1 if place == axis else 1 for place in range(len(shape)))).expand(shape)


SHAPE = (1, 6, 4, 5)
TOLD = {
    "channels first": (SHAPE, 2, 3, CHANNELS_FIRST),
    "channels last": (SHAPE, 1, 2, Axes(3, 1, 2)),
    "transposed": (SHAPE, 3, 2, Axes(1, 3, 2)),
    "heads and tokens": (SHAPE, 2, 2, "tokens, not channels and places"),
    "a single one": (SHAPE, 0, 2, "a single row or column of places"),
    "among the images": (
        (2, 6, 4, 5),
        0,
        2,
        "places along several axes, as in windows or in the weights of attention",
    ),
    "five axes": ((1, 2, 3, 4, 5), 2, 3, "places, and other axes than those of channels"),
}


@pytest.mark.parametrize(("shape", "down", "across", "told"), TOLD.values(), ids=TOLD.keys())
def test_axes_are_those_along_which_coordinates_go(shape, down, across, told):
    assert read_axes(Origin(coordinates(*shape, axis=down), coordinates(*shape, axis=across)), shape) == told


def test_the_order_of_places_is_told():
    columns = coordinates(*SHAPE, axis=3)
    for rows, told in (
        ([3.0, 2.0, 1.0, 0.0], Axes(1, 2, 3, (2,))),
        # As after an enlargement without interpolation.
        ([0.0, 0.0, 1.0, 1.0], CHANNELS_FIRST),
        ([0.0, 2.0, 1.0, 3.0], "places that are out of order"),
    ):
        assert read_axes(Origin(coordinates(*SHAPE, axis=2, values=rows), columns), SHAPE) == told


def test_channels_may_be_apart_by_less_than_half_a_step():
    rows, columns = coordinates(*SHAPE, axis=2), coordinates(*SHAPE, axis=3)
    apart = torch.arange(6).view(1, -1, 1, 1) % 2 * 0.8
    assert read_axes(Origin(rows + apart, columns), SHAPE) == CHANNELS_FIRST
    told = read_axes(Origin(rows + 2 * apart, columns), SHAPE)
    assert told == "places along several axes, as in windows or in the weights of attention"


def test_what_is_of_no_place_is_said_so():
    assert read_axes(NOWHERE, SHAPE) == "values of no place in particular"
    rows = coordinates(*SHAPE, axis=2)
    assert read_axes(Origin(rows, None), SHAPE) == "values of no place in particular"
    assert (
        read_axes(Origin(rows[:, :, :1], coordinates(*SHAPE, axis=3)), (1, 6, 1, 5))
        == "a single row or column of places"
    )


@pytest.mark.parametrize("registers", [0, 1, 3])
def test_tokens_without_a_place_are_told_from_those_that_have_one(registers):
    shape = (1, registers + 6, 8)
    rows, columns = ([torch.nan] * registers + line for line in ([0.0, 0.0, 4.0, 4.0, 8.0, 8.0], [0.0, 4.0] * 3))
    origin = Origin(coordinates(*shape, axis=1, values=rows), coordinates(*shape, axis=1, values=columns))
    tokens = tuple((registers + 2 * row, registers + 2 * row + 1) for row in range(3))
    assert read_axes(origin, shape) == Axes(2, 1, 1, tokens=tokens)


def test_tokens_that_make_no_whole_grid_have_no_places():
    shape = (1, 3, 8)
    rows = coordinates(*shape, axis=1, values=[0.0, 0.0, 4.0])
    columns = coordinates(*shape, axis=1, values=[0.0, 4.0, 0.0])
    assert read_axes(Origin(rows, columns), shape) == "tokens, not channels and places"
    again = coordinates(*shape, axis=1, values=[0.0, 0.0, 0.0])
    assert read_axes(Origin(rows, again), shape) == "a single row or column of places"


def test_of_no_images_nothing_can_be_taken_for_something_else():
    assert read_axes(NOWHERE, (0, 3, 4, 4)) == CHANNELS_FIRST
