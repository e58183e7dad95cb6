"""Which axis of a layer's output is which: where its channels are, and where the places of the image are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whyfooled.classifier.origins import NEAR, Origin, drop_repeats


@final
@dataclass(frozen=True)
class Axes:
    """Where the channels and the places of a layer's output are; axis 0 is the images'.

    Parameters
    ----------
    channels
        The axis of the channels.
    rows, columns
        The axes along which the places go down and across the image; the same axis where the places are tokens.
    reversed
        Those of the two along which the places run from the image's end to its start.
    tokens
        Where the places are tokens: for each row of places, from left to right, which token is there. A token that is
        nowhere among them, such as a class token, has no place.
    """

    channels: int = 1
    rows: int = 2
    columns: int = 3
    reversed: tuple[int, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()

    def places_all(self, shape: tuple[int, ...]) -> bool:
        """Tell whether all of an output of this shape, with the images' axis, has a place; a class token has none."""
        return not self.tokens or shape[self.rows] == len(self.tokens) * len(self.tokens[0])

    def size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return how many rows and columns of places an output has, from its shape without the images' axis."""
        if self.tokens:
            return len(self.tokens), len(self.tokens[0])
        return shape[self.rows - 1], shape[self.columns - 1]

    def to_grid(self, output: Tensor) -> Tensor:
        """Turn a layer's output, or a gradient of its shape, into (n,channels,rows,columns); it can be differentiated.

        Tokens without a place are left out.
        """
        if self.tokens:
            placed: Tensor = output.index_select(self.rows, self._token_numbers(output)).movedim(self.channels, 1)
            return placed.reshape(*placed.shape[:2], *self.size(()))
        turned = output.flip(self.reversed) if self.reversed else output
        order = (0, self.channels, self.rows, self.columns)
        return turned if order == (0, 1, 2, 3) else turned.permute(order)

    def _token_numbers(self, output: Tensor) -> Tensor:
        return torch.tensor(self.tokens, device=output.device).flatten()


CHANNELS_FIRST = Axes()
"""(n, channels, rows, columns)."""


def read_axes(origin: Origin, shape: tuple[int, ...]) -> Axes | str:
    """Tell which axis of an output is which by where its values come from; what it gives in place of that, in words.

    Parameters
    ----------
    origin
        Of the output.
    shape
        Of the output, with the images' axis.
    """
    rows, columns = origin
    if 0 in shape and len(shape) == 4:
        # Of no images, nothing can be taken for something else.
        return CHANNELS_FIRST
    if rows is None or columns is None:
        return "values of no place in particular"
    if not (_goes_on(rows) and _goes_on(columns)):
        return "a single row or column of places"
    down, across = _along(rows), _along(columns)
    if down is None or across is None or 0 in (down[0], across[0]):
        return "places along several axes, as in windows or in the weights of attention"
    row_axis, column_axis = down[0], across[0]
    if row_axis == column_axis:
        tokens = _tokens_on_grid(down[1], across[1]) if len(shape) == 3 else ()
        return Axes(3 - row_axis, row_axis, row_axis, tokens=tokens) if tokens else "tokens, not channels and places"
    if len(shape) != 4:
        return "places, and other axes than those of channels"
    order = {axis: _order(profile) for axis, profile in (down, across)}
    if None in order.values():
        return "places that are out of order"
    backwards = tuple(axis for axis, runs in order.items() if runs == -1)
    return Axes(6 - row_axis - column_axis, row_axis, column_axis, backwards)


def _goes_on(coordinate: Tensor) -> bool:
    placed = drop_repeats(coordinate)
    placed = placed[~placed.isnan()]
    return len(placed) > 1 and bool(placed.max() - placed.min() > NEAR)


def _along(coordinate: Tensor) -> tuple[int, Tensor] | None:
    """Return the axis along which a coordinate changes, and how it goes there (NaN: nowhere); None if along several.

    Along the others it may differ by less than half a step, as where channels of two branches were put together.
    """
    values = drop_repeats(coordinate)
    for axis, length in enumerate(values.shape):
        if length > 1:
            profile = values.movedim(axis, 0).flatten(1).nanmean(1)
            off = (values - profile.view(-1, *(1,) * (values.ndim - axis - 1))).abs().nan_to_num(0).max()
            placed = profile[~profile.isnan()]
            if len(placed) > 1 and off < max(NEAR, float(placed.max() - placed.min()) / (len(placed) - 1) / 2):
                return axis, profile
    return None


def _order(profile: Tensor) -> int | None:
    """Return 1 for coordinates that never fall, -1 for those that never rise, None for others."""
    steps = profile.diff()
    return 1 if bool((steps >= -NEAR).all()) else -1 if bool((steps <= NEAR).all()) else None


def _tokens_on_grid(rows: Tensor, columns: Tensor) -> tuple[tuple[int, ...], ...]:
    """Return which token is at each place, row by row; nothing if the tokens' places make no whole grid."""
    placed = (~(rows.isnan() | columns.isnan())).nonzero()[:, 0]
    down, across = _ranks(rows[placed]), _ranks(columns[placed])
    height, width = int(down.max()) + 1, int(across.max()) + 1
    numbers = torch.full((height, width), -1)
    numbers[down, across] = placed
    if height * width != len(placed) or bool((numbers < 0).any()):
        return ()
    return tuple(map(tuple, numbers.tolist()))


def _ranks(values: Tensor) -> Tensor:
    """Return the place of each value among the different ones, the smallest first."""
    ordered, order = values.sort()
    steps = (ordered.diff(prepend=ordered[:1]) > NEAR).cumsum(0)
    return torch.zeros_like(order).index_copy(0, order, steps)
