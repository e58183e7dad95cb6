"""The first pass of a dissection: exact thresholds, moments and top images of every unit, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whyfooled.classifier.layers import Layer
from whyfooled.errors import bad_parameter

BUDGET = 2**28
"""Activations that are held at once to find thresholds, 4 bytes each; what needs more takes more passes. [ours]"""


def ranks(top: float, positions: int) -> int:
    """Return how many of so many activations may lie above a threshold; raise `ParameterError` if none may.

    The share is taken as it is written: 0.005 of 200 activations is 1, whatever the nearest binary fraction gives.
    """
    above = int(Fraction(str(top)) * positions)
    if not above:
        fix = f"Give more images, or at least {1 / positions:.2g}."
        raise bad_parameter("top", f"must leave at least one of a unit's {positions} activations", top, fix)
    return above


class Largest:
    """The largest values of each of u units, of all that were added.

    Parameters
    ----------
    keep
        How many of each unit are kept; at most twice as many are held at any time, and what is added at once.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self._held: list[Tensor] = []

    def add(self, values: Float[Tensor, "u m"]) -> None:
        """Add values of every unit."""
        self._held.append(values)
        if sum(part.shape[1] for part in self._held) >= 2 * self.keep:
            self._held = [self._kept()]

    def threshold(self) -> tuple[Float[Tensor, " u"], Int[Tensor, " u"]]:
        """Return the smallest of the values that are kept of each unit, and how many are above it."""
        kept = self._kept()
        smallest = kept.amin(1)
        return smallest, (kept > smallest.unsqueeze(1)).sum(1)

    def _kept(self) -> Tensor:
        held = torch.cat(self._held, 1)
        return held.topk(min(self.keep, held.shape[1]), dim=1, sorted=False).values


class Moments:
    """Mean, standard deviation and range of each of u units over everything that was added."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = self._square = torch.zeros(())
        self._low = self._high = torch.zeros(())

    def add(self, values: Float[Tensor, "u m"]) -> None:
        """Add values of every unit."""
        exact = values.double()
        low, high = values.aminmax(dim=1)
        if self.count:
            low, high = torch.minimum(low, self._low), torch.maximum(high, self._high)
        self._low, self._high = low, high
        self._sum = self._sum.to(values.device) + exact.sum(1)
        self._square = self._square.to(values.device) + exact.square().sum(1)
        self.count += values.shape[1]

    @property
    def mean(self) -> Float[Tensor, " u"]:
        """The mean."""
        return self._sum / self.count

    @property
    def std(self) -> Float[Tensor, " u"]:
        """The (population) standard deviation; exactly 0 where all values are equal."""
        varies = (self._square / self.count - self.mean.square()).clamp(min=0).sqrt()
        return varies.masked_fill(self.constant, 0)

    @property
    def smallest(self) -> Float[Tensor, " u"]:
        """The smallest value."""
        return self._low

    @property
    def constant(self) -> Tensor:
        """(u,) Whether all values of a unit are equal."""
        return self._low == self._high


class TopImages:
    """The images in which each of u units is most active, with its maps there; of equal ones the first in the list.

    Parameters
    ----------
    most
        How many of each unit.
    """

    def __init__(self, layer: Layer, most: int) -> None:
        units, (height, width) = layer.units, layer.map_size
        self.images = torch.full((units, most), -1)
        self.values = torch.full((units, most), float("-inf"))
        self.maps = torch.zeros(units, most, height, width)

    def add(self, images: Sequence[int], maps: Float[Tensor, "n u h w"]) -> None:
        """Add images, by their places in the list."""
        unit_maps = maps.transpose(0, 1).cpu()
        places = torch.tensor(images).expand(len(unit_maps), -1)
        numbers, values = torch.cat([self.images, places], 1), torch.cat([self.values, unit_maps.amax((2, 3))], 1)
        # By image first: a stable sort by value leaves equal ones in that order. What is not there yet comes last.
        first = numbers.where(numbers >= 0, numbers.max() + 1).argsort(1)
        chosen = first.gather(1, values.gather(1, first).argsort(dim=1, descending=True, stable=True))
        chosen = chosen[:, : self.images.shape[1]]
        self.images, self.values = numbers.gather(1, chosen), values.gather(1, chosen)
        rows = torch.arange(len(unit_maps)).unsqueeze(1)
        self.maps = torch.cat([self.maps, unit_maps], 1)[rows, chosen]


def share_units_out(layers: Sequence[Layer], keep: Mapping[str, int]) -> Iterator[dict[str, slice]]:
    """Share the units out among passes, so that what one pass holds stays within `BUDGET`; one unit is always there."""
    free, taken = BUDGET, dict[str, slice]()
    for layer in layers:
        start, needed = 0, 2 * keep[layer.name]
        while start < layer.units:
            fitting = min(max(free // needed, 0 if taken else 1), layer.units - start)
            if fitting:
                taken[layer.name] = slice(start, start + fitting)
                start, free = start + fitting, free - fitting * needed
            if start < layer.units:
                yield taken
                free, taken = BUDGET, {}
    yield taken


def arrange_by_unit(maps: Float[Tensor, "n u h w"]) -> Float[Tensor, "u m"]:
    """Put all activations of a unit in one row."""
    return maps.transpose(0, 1).flatten(1)
