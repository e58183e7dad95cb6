"""The first pass of a dissection: exact thresholds, moments and top images of every unit, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import final

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
    floor
        (u,) For each unit a value of which so many larger or equal ones are known elsewhere: what is not above it makes
        no difference. None if there is none.
    """

    def __init__(self, keep: int, floor: Float[Tensor, " u"] | None = None) -> None:
        self.keep = keep
        self.floor = floor
        self._held: list[Tensor] = []

    def add(self, values: Float[Tensor, "u m"]) -> None:
        """Add values of every unit."""
        self._held.append(values if self.floor is None else _leave_out(values, self.floor.to(values.device)))
        if sum(part.shape[1] for part in self._held) >= 2 * self.keep:
            self._held = [self.kept()]
            least = self._held[0].amin(1)
            self.floor = least if self.floor is None else torch.maximum(least, self.floor.to(least.device))

    def threshold(self) -> tuple[Float[Tensor, " u"], Int[Tensor, " u"]]:
        """Return the smallest of the values that are kept of each unit, and how many are above it."""
        kept = self.kept()
        smallest = kept.amin(1)
        return smallest, (kept > smallest.unsqueeze(1)).sum(1)

    def kept(self) -> Float[Tensor, "u k"]:
        """Return the largest values of each unit, in no order: fewer than are to be kept if no more were added."""
        held = torch.cat(self._held, 1)
        return held.topk(min(self.keep, held.shape[1]), dim=1, sorted=False).values


def _leave_out(values: Float[Tensor, "u m"], floor: Float[Tensor, " u"]) -> Float[Tensor, "u k"]:
    """Return as many of the largest values of each unit as any unit has above its floor."""
    most = int((values > floor.unsqueeze(1)).sum(1).max())
    return values.topk(most, dim=1, sorted=False).values


@final
@dataclass(frozen=True, eq=False)
class BatchMoments:
    """Sums and range of each of u units over one batch: m values of each; on the CPU."""

    count: int
    total: Float[Tensor, " u"]
    square: Float[Tensor, " u"]
    low: Float[Tensor, " u"]
    high: Float[Tensor, " u"]

    @staticmethod
    def of(values: Float[Tensor, "u m"]) -> BatchMoments:
        """Sum up in double precision."""
        exact = values.double()
        low, high = values.aminmax(dim=1)
        sums = (exact.sum(1), exact.square().sum(1), low, high)
        return BatchMoments(values.shape[1], *(part.cpu() for part in sums))


@final
@dataclass(frozen=True, eq=False)
class Moments:
    """Mean, standard deviation and range of each of u units over all batches that were added, one after the other."""

    sums: BatchMoments

    def after(self, batch: BatchMoments) -> Moments:
        """Return what they are with another batch."""
        sums = self.sums
        return Moments(
            BatchMoments(
                sums.count + batch.count,
                sums.total + batch.total,
                sums.square + batch.square,
                torch.minimum(sums.low, batch.low),
                torch.maximum(sums.high, batch.high),
            )
        )

    @property
    def mean(self) -> Float[Tensor, " u"]:
        """The mean."""
        return self.sums.total / self.sums.count

    @property
    def std(self) -> Float[Tensor, " u"]:
        """The (population) standard deviation; exactly 0 where all values are equal."""
        varies = (self.sums.square / self.sums.count - self.mean.square()).clamp(min=0).sqrt()
        return varies.masked_fill(self.constant, 0)

    @property
    def smallest(self) -> Float[Tensor, " u"]:
        """The smallest value."""
        return self.sums.low

    @property
    def constant(self) -> Tensor:
        """(u,) Whether all values of a unit are equal."""
        return self.sums.low == self.sums.high


@final
@dataclass(frozen=True, eq=False)
class Tops:
    """Images in which some units are most active: k each, largest first; on the CPU.

    Parameters
    ----------
    units
        (r,) Which units.
    images
        (r,k) The images, by their places in the list; −1 for none.
    values
        (r,k) The units' largest activations there.
    maps
        (r,k,h,w) The units' maps there.
    """

    units: Int[Tensor, " r"]
    images: Int[Tensor, "r k"]
    values: Float[Tensor, "r k"]
    maps: Float[Tensor, "r k h w"]


class TopImages:
    """The images in which each of u units is most active, with its maps there; of equal ones the first in the list.

    Parameters
    ----------
    most
        How many of each unit.
    least
        (u,) How large an activation of each unit an image needs to be of interest; any if None.
    """

    def __init__(self, layer: Layer, most: int, least: Float[Tensor, " u"] | None = None) -> None:
        units, (height, width) = layer.units, layer.map_size
        self.least = torch.full((units,), float("-inf")) if least is None else least
        self.images = torch.full((units, most), -1)
        self.values = torch.full((units, most), float("-inf"))
        self.maps = torch.zeros(units, most, height, width)

    @property
    def floor(self) -> Float[Tensor, " u"]:
        """How large an activation of each unit an image needs to be among them."""
        return torch.maximum(self.values[:, -1], self.least)

    def add(self, images: Sequence[int], maps: Float[Tensor, "n u h w"]) -> None:
        """Add images, by their places in the list."""
        unit_maps = maps.transpose(0, 1).cpu()
        values = unit_maps.amax((2, 3))
        units = (values.amax(1) >= self.floor).nonzero()[:, 0]
        self.take(Tops(units, torch.tensor(images).expand(len(units), -1), values[units], unit_maps[units]))

    def take(self, tops: Tops) -> None:
        """Add the images that were chosen among others."""
        units = tops.units
        if not len(units):
            return
        numbers = torch.cat([self.images[units], tops.images], 1)
        values = torch.cat([self.values[units], tops.values], 1)
        # By image first: a stable sort by value leaves equal ones in that order. What is not there yet comes last.
        first = numbers.where(numbers >= 0, numbers.max() + 1).argsort(1)
        chosen = first.gather(1, values.gather(1, first).argsort(dim=1, descending=True, stable=True))
        chosen = chosen[:, : self.images.shape[1]]
        rows = torch.arange(len(units)).unsqueeze(1)
        self.images[units], self.values[units] = numbers.gather(1, chosen), values.gather(1, chosen)
        self.maps[units] = torch.cat([self.maps[units], tops.maps], 1)[rows, chosen]

    def of_interest(self) -> Tops:
        """Return the units that have images of interest, and as many images of each as any of them has."""
        high = (self.values >= self.least.unsqueeze(1)) & (self.images >= 0)
        units, most = high.any(1).nonzero()[:, 0], int(high.sum(1).max())
        return Tops(units, *(part[units, :most].clone() for part in (self.images, self.values, self.maps)))


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
