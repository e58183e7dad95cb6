"""The second pass of a dissection: counting, pixel by pixel, where active units and concepts overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whyfooled.units.concepts import NOTHING

_AT_ONCE = 2**21
"""Enlarged activations that are held at once, at most. [ours]"""
_FEW = 2**20
"""Combinations of labels that are told apart by a table rather than by sorting. [ours]"""


@final
@dataclass(frozen=True, eq=False)
class Labels:
    """What the pixels of one image show, each combination of concepts written as one code.

    Parameters
    ----------
    codes
        (h,w) For every pixel the number of its combination.
    shown
        (k,c) Whether each combination has each of the c concepts that the image shows.
    concepts
        (c,) Which concepts those are.
    categories
        The categories that are annotated in this image.
    """

    codes: Int[Tensor, "h w"]
    shown: Bool[Tensor, "k c"]
    concepts: Int[Tensor, " c"]
    categories: tuple[int, ...]

    def area(self) -> Int[Tensor, " c"]:
        """Count the pixels that show each concept."""
        return self.summed(torch.bincount(self.codes.flatten(), minlength=len(self.shown)).unsqueeze(0))[0]

    def summed(self, counts: Int[Tensor, "u k"]) -> Int[Tensor, "u c"]:
        """Turn counts of combinations into counts of concepts, exactly: doubles are whole up to 2⁵³."""
        return (counts.double() @ self.shown.double()).long()


def encode_labels(maps: Int[Tensor, "m h w"], whole: Sequence[int], categories: Sequence[int]) -> Labels:
    """Write label maps as codes; a pixel that several maps give the same concept shows it once."""
    codes = torch.zeros(maps.shape[1:], dtype=torch.int32, device=maps.device)
    # What each code stands for, one row for each map so far.
    said = torch.zeros(0, 1, dtype=torch.int64, device=maps.device)
    for label_map in maps:
        values, places = _compact(label_map - NOTHING)
        pairs, codes = _compact(codes.long() * len(values) + places)
        said = torch.cat([said[:, pairs // len(values)], values[pairs % len(values)].unsqueeze(0) + NOTHING])
    concepts: Tensor = torch.unique(torch.cat([said.flatten(), said.new_tensor(list(whole))]))
    concepts = concepts[concepts != NOTHING]
    shown = (said.unsqueeze(2) == concepts).any(0) | torch.isin(concepts, concepts.new_tensor(list(whole)))
    return Labels(codes, shown, concepts, tuple(categories))


def _compact(values: Int[Tensor, "h w"]) -> tuple[Int[Tensor, " k"], Int[Tensor, "h w"]]:
    """Return the values that are there, and for each pixel the place of its own among them, as int32."""
    if int(values.max()) >= _FEW:
        present, places = torch.unique(values, return_inverse=True)
        return present, places.int()
    there = torch.bincount(values.flatten()) > 0
    places = (there.cumsum(0) - 1).int()
    return there.nonzero()[:, 0], places.index_select(0, values.flatten().int()).view(values.shape)


def find_active_pixels(
    excess: Float[Tensor, "u h w"], size: tuple[int, int]
) -> Iterator[tuple[Int[Tensor, " e"], Int[Tensor, " e"]]]:
    """Tell which pixels each unit is active in, as pairs of unit and pixel (int32), some at a time.

    A unit is active where its map, less its threshold and enlarged to `size` bilinearly (pixel centres matched, edges
    repeated), is above 0. Enlarging the difference keeps plateaus at the threshold at exactly 0, where enlarging the
    map would leave them to rounding. Pixels between the same four places of the map make a tile; where none of the
    four is above 0 no pixel is, and the tile, as most are, is never enlarged.
    """
    rows, columns = (_tiles(*sizes, excess) for sizes in zip(excess.shape[1:], size, strict=True))
    awake = (excess.flatten(1).amax(1) > 0).nonzero()[:, 0]
    corners = excess[awake][:, rows.corners][:, :, :, columns.corners]
    tiles = (corners.amax((2, 4)) > 0).nonzero()
    for some in torch.split(tiles, max(1, _AT_ONCE // (rows.longest * columns.longest))) if len(tiles) else ():
        place, row, column = some.unbind(1)
        four = corners[place, row, :, column]
        # Down the left and the right edge of each tile first: between edges that are not above 0 nothing is.
        edges = torch.lerp(four[:, None, 0], four[:, None, 1], rows.fraction[row].unsqueeze(2))
        tile, down = (edges.amax(2) > 0).nonzero().unbind(1)
        left, right = edges[tile, down].unsqueeze(1).unbind(2)
        line, across = (torch.lerp(left, right, columns.fraction[column[tile]]) > 0).nonzero().int().unbind(1)
        first = (rows.start[row[tile]] + down) * size[1] + columns.start[column[tile]]
        unit = awake[place[tile]]
        yield unit.int().index_select(0, line), first.int().index_select(0, line) + across


@final
@dataclass(frozen=True, eq=False)
class _Tiles:
    """How a side of a map is enlarged, in tiles of pixels that lie between the same two places.

    Parameters
    ----------
    corners
        (t,2) The two places of each tile.
    start
        (t,) The first pixel of each tile.
    fraction
        (t,longest) How far each pixel is from the first place to the second; NaN behind a tile's last pixel.
    """

    corners: Int[Tensor, "t 2"]
    start: Int[Tensor, " t"]
    fraction: Float[Tensor, "t longest"]

    @property
    def longest(self) -> int:
        """How many pixels the longest tile has."""
        return self.fraction.shape[1]


def _tiles(places: int, pixels: int, like: Tensor) -> _Tiles:
    at = (torch.arange(pixels, dtype=torch.float64) + 0.5) * places / pixels - 0.5
    tile = at.floor().long() + 1
    counts = torch.bincount(tile, minlength=places + 1)
    start = counts.cumsum(0) - counts
    fraction = torch.full((places + 1, int(counts.max())), float("nan"), dtype=torch.float64)
    fraction[tile, torch.arange(pixels) - start[tile]] = at - at.floor()
    first = torch.arange(-1, places)
    corners = torch.stack([first, first + 1], 1).clamp(0, places - 1)
    return _Tiles(corners.to(like.device), start.to(like.device), fraction.to(like))


def count_codes(unit: Int[Tensor, " e"], pixel: Int[Tensor, " e"], labels: Labels, units: int) -> Int[Tensor, "u k"]:
    """Count each unit's active pixels by their combination of labels."""
    codes = len(labels.shown)
    # With 32 bits this is twenty times faster than with 64.
    here = unit * codes + labels.codes.flatten().index_select(0, pixel)
    return torch.bincount(here, minlength=units * codes).view(units, codes)


@final
@dataclass(frozen=True, eq=False)
class Overlap:
    """What u units share with the annotations of one image.

    Parameters
    ----------
    shared
        (u,c) Pixels where a unit is active and each of the c concepts is shown that the annotations show.
    active
        (u,) Pixels where a unit is active.
    """

    shared: Int[Tensor, "u c"]
    active: Int[Tensor, " u"]


class Tally:
    """Counts over images of u units, c concepts and k categories; all int64.

    Parameters
    ----------
    both
        (u,c) Pixels where a unit is active and a concept shown.
    active
        (u,k) Pixels where a unit is active, in the images in which a category is annotated.
    """

    def __init__(self, both: Int[Tensor, "u c"], active: Int[Tensor, "u k"]) -> None:
        self.both, self.active = both, active

    @staticmethod
    def of_nothing(units: int, concepts: int, categories: int, device: torch.device | str = "cpu") -> Tally:
        """Return what is counted before the first image."""
        return Tally(
            torch.zeros(units, concepts, dtype=torch.int64, device=device),
            torch.zeros(units, categories, dtype=torch.int64, device=device),
        )

    def add(self, overlap: Overlap, labels: Labels) -> None:
        """Add an image with these annotations."""
        self.both[:, labels.concepts] += overlap.shared
        self.active[:, list(labels.categories)] += overlap.active.unsqueeze(1)

    def take(self, other: Tally, concepts: Int[Tensor, " c"]) -> None:
        """Add what was counted over other images, in which these concepts are shown and no others."""
        self.both[:, concepts] += other.both
        self.active += other.active

    def to(self, device: str) -> Tally:
        """Return it on a device."""
        return Tally(self.both.to(device), self.active.to(device))

    def union(self, area: Int[Tensor, " c"], category_of: Sequence[int]) -> Int[Tensor, "u c"]:
        """Count pixels where a unit is active or a concept shown, where the concept's category is annotated."""
        return self.active[:, list(category_of)] + area - self.both

    def iou(self, area: Int[Tensor, " c"], category_of: Sequence[int]) -> Float[Tensor, "u c"]:
        """Return intersection over union, float64; 0 where neither is ever there."""
        return self.both.double() / self.union(area, category_of).clamp(min=1)


class Spread:
    """How what u units share with c concepts is spread over images; int64.

    Parameters
    ----------
    images
        (u,) In how many images a unit is active.
    most
        (u,c) The most pixels of one image that a unit shares with a concept.
    """

    def __init__(self, images: Int[Tensor, " u"], most: Int[Tensor, "u c"]) -> None:
        self.images, self.most = images, most

    @staticmethod
    def of_nothing(units: int, concepts: int, device: torch.device | str = "cpu") -> Spread:
        """Return what there is before the first image."""
        return Spread(
            torch.zeros(units, dtype=torch.int64, device=device),
            torch.zeros(units, concepts, dtype=torch.int64, device=device),
        )

    def add(self, overlap: Overlap, labels: Labels) -> None:
        """Add an image with these annotations."""
        self.images += overlap.active > 0
        self.most[:, labels.concepts] = torch.maximum(self.most[:, labels.concepts], overlap.shared)

    def take(self, other: Spread, concepts: Int[Tensor, " c"]) -> None:
        """Add other images, in which these concepts are shown and no others."""
        self.images += other.images
        self.most[:, concepts] = torch.maximum(self.most[:, concepts], other.most)

    def to(self, device: str) -> Spread:
        """Return it on a device."""
        return Spread(self.images.to(device), self.most.to(device))
