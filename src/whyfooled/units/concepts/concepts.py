"""Concepts: named sets of pixels in annotated images, read one image at a time (Bau et al. 2017, sec. 2.1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, final, runtime_checkable

from jaxtyping import Int
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.classifier import Fit
from whyfooled.errors import ImageError
from whyfooled.images import to_tensor
from whyfooled.types import Image

NOTHING = -1
"""What a label map holds where a pixel shows no concept."""


@final
@dataclass(frozen=True, eq=False)
class Annotated:
    """One image, and what its pixels show.

    Parameters
    ----------
    name
        Its name, unique among the images.
    image
        The picture, of any size.
    maps
        (m,h,w) Label maps: for every pixel the index of a concept, or `NOTHING`. Each map is of one category, and a
        category may have several: a pixel shows all that they say. Their size need not be the picture's; m may be 0.
    whole
        Concepts that the whole image shows.
    categories
        The categories that are annotated in this image, whether they show anything or not.
    """

    name: str
    image: PILImage.Image
    maps: Int[Tensor, "m h w"]
    whole: tuple[int, ...]
    categories: tuple[int, ...]

    def fitted(self, fit: Fit, channels: int = 3) -> tuple[Image, Int[Tensor, "m rows columns"]]:
        """Bring the picture to a classifier's input size, and cut the label maps as the picture is cut.

        Returns
        -------
        tuple
            (c,h,w) The picture, values in [0, 1]; and (m,rows,columns) the part of the label maps that the classifier
            sees, rounded to whole pixels.
        """
        return to_tensor(fit(self.image), channels), self.cut(fit)

    def cut(self, fit: Fit) -> Int[Tensor, "m rows columns"]:
        """Return the part of the label maps that the classifier sees, rounded to whole pixels."""
        left, top, right, bottom = fit.seen(self.image.size)
        height, width = self.maps.shape[1:]
        rows = slice(*_span(top, bottom, height))
        columns = slice(*_span(left, right, width))
        return self.maps[:, rows, columns]


def _span(start: float, end: float, length: int) -> tuple[int, int]:
    """Turn shares of a side into whole pixels, at least one."""
    first = min(round(start * length), length - 1)
    return first, max(first + 1, round(end * length))


@runtime_checkable
class ConceptReader(Protocol):
    """What reads annotated images."""

    def read(self, index: int) -> Annotated:
        """Read one image with its annotations; raise `ImageError` if it cannot be read."""

    def picture(self, index: int) -> PILImage.Image:
        """Read one image alone; raise `ImageError` if it cannot be read."""

    def files(self) -> Iterable[Path]:
        """Name the files that everything is in: a digest changes with their sizes."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Concepts:
    """Annotated images, listed but not read: ``concepts[3]`` reads one.

    Parameters
    ----------
    title
        What was opened, as it was written.
    images
        The images' names, each once.
    names
        The concepts' names. A name may stand in several categories, as several concepts.
    category_of
        For each concept, its category.
    categories
        The categories' names.
    reader
        Reads the images.
    """

    title: str
    images: tuple[str, ...]
    names: tuple[str, ...]
    category_of: tuple[int, ...]
    categories: tuple[str, ...]
    reader: ConceptReader

    def __post_init__(self) -> None:
        if not self.images:
            raise ImageError(f"{self.title} has no annotated image.")
        if not self.names:
            raise ImageError(f"{self.title} has no concept.")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Concepts({self.title}: {len(self)} images, {len(self.names)} concepts in {', '.join(self.categories)})"

    def __getitem__(self, index: int) -> Annotated:
        """Read one image, and no other.

        Raises
        ------
        ImageError
            If it, or its annotation, cannot be read.
        """
        return self.reader.read(range(len(self))[index])

    def __iter__(self) -> Iterator[Annotated]:
        return (self[index] for index in range(len(self)))

    def only(self, places: Sequence[int]) -> Concepts:
        """Return the images at some places alone, in that order; nothing is read."""
        images = tuple(self.images[place] for place in places)
        return replace(self, images=images, reader=_Some(self.reader, tuple(places)))

    def digest(self) -> str:
        """Return a digest that changes when names, categories or files change; pictures are not read."""
        listed = [self.images, self.names, self.category_of, self.categories]
        digest = hashlib.blake2b(json.dumps(listed).encode(), digest_size=16)
        for path in self.reader.files():
            size = path.stat().st_size if path.exists() else "missing"
            digest.update(f"{size} ".encode())
        return digest.hexdigest()


@final
@dataclass(frozen=True, eq=False)
class _Some:
    """Reads the images at some places of another reader."""

    reader: ConceptReader
    places: tuple[int, ...]

    def read(self, index: int) -> Annotated:
        return self.reader.read(self.places[index])

    def picture(self, index: int) -> PILImage.Image:
        return self.reader.picture(self.places[index])

    def files(self) -> Iterable[Path]:
        return self.reader.files()
