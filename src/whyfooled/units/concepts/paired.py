"""Images and label maps that belong together by their names, and what the numbers of the label maps mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import final

import torch
from jaxtyping import Int
from PIL import Image as PILImage
from torch import Tensor

from whyfooled.errors import ImageError
from whyfooled.images import PHOTOGRAPH_SUFFIXES, compose_accents, list_files_below, read_photograph
from whyfooled.images.label_maps import read_label_map
from whyfooled.units.concepts.concepts import NOTHING, Annotated, Concepts

CATEGORY = "object"
"""The category of concepts for which none is given, as Broden calls what is neither part nor material. [ours]"""
VOID = 255
"""The number of pixels that are left out of an annotation, as in PASCAL VOC, unless the list of labels names it."""
MOST_LABELS = 65536
"""As many as a grey picture with 16 bits has."""
_UNKNOWN = -2
_SLACK = 0.03
"""By how much the proportions of a label map may differ from the image's, apart from rounding to a pixel. [ours]"""


@final
@dataclass(frozen=True)
class Labels:
    """What the numbers in label maps mean.

    Parameters
    ----------
    names, category_of, categories
        The concepts, as `Concepts` has them.
    tables
        For each category, what each number from 0 means: a concept, `NOTHING`, or that it is not known.
    count
        How many numbers are known.
    listed
        Where they are listed, for messages.
    void
        Whether `VOID` is nothing, unless it is listed.
    """

    names: tuple[str, ...]
    category_of: tuple[int, ...]
    categories: tuple[str, ...]
    tables: tuple[tuple[int, ...], ...]
    count: int
    listed: str
    void: bool

    @staticmethod
    def of(rows: Sequence[tuple[int, str, str]], listed: str, *, void: bool) -> Labels:
        """Make concepts of rows (label, name, category), in the order of the first of each; an empty name is none.

        Labels of one name and category are one concept; a label with rows in several categories is one in each. With
        `void`, `VOID` is nothing where no row names it.
        """
        known = {label for label, _, _ in rows}
        categories = list(dict.fromkeys(category for _, name, category in rows if name))
        concepts = {pair: place for place, pair in enumerate(dict.fromkeys((row[2], row[1]) for row in rows if row[1]))}
        blank = [
            NOTHING if label in known or (void and label == VOID) else _UNKNOWN
            for label in range(max(known | {VOID}) + 1)
        ]
        tables = {category: blank.copy() for category in categories}
        for label, name, category in rows:
            if name:
                tables[category][label] = concepts[category, name]
        return Labels(
            tuple(name for _, name in concepts),
            tuple(categories.index(category) for category, _ in concepts),
            tuple(categories),
            tuple(map(tuple, tables.values())),
            len(known),
            listed,
            void,
        )

    def read(self, path: Path) -> Int[Tensor, "m h w"]:
        """Read a label map as concepts, one map for each category; raise `ImageError` if it has an unknown number."""
        values = read_label_map(path)
        tables = torch.tensor(self.tables)
        inside = (values >= 0) & (values < tables.shape[1])
        maps = tables[:, values.where(inside, 0)]
        unknown = ~inside | (maps[0] == _UNKNOWN)
        if unknown.any():
            raise ImageError(
                f"{path} must hold the numbers of the {self.count} labels that {self.listed} names"
                f"{f', or {VOID} where nothing is annotated' if self.void else ''}; got {int(values[unknown][0])}."
            )
        return maps


@final
@dataclass(frozen=True)
class PairedReader:
    """Reads images with one label map each; every category is annotated in every image.

    Parameters
    ----------
    images, maps
        The folders of the images and of their label maps, absolute.
    pairs
        For each image, its path and its label map's, below these folders.
    labels
        What the numbers in the label maps mean.
    lists
        The files that say so.
    """

    images: Path
    maps: Path
    pairs: tuple[tuple[str, str], ...]
    labels: Labels
    lists: tuple[Path, ...] = ()

    def read(self, index: int) -> Annotated:
        """Read an image and its label map; `ImageError` if one cannot be read, or they are of other proportions."""
        name, label_map = self.pairs[index]
        image, maps = self.picture(index), self.labels.read(self.maps / label_map)
        height, width = maps.shape[1:]
        # Both sides of width / height = width / height, with what rounding to whole pixels makes of them.
        across, down = width * image.height, height * image.width
        if abs(across - down) > _SLACK * max(across, down) + max(image.size):
            raise ImageError(
                f"{self.maps / label_map} must have the proportions of its image, {image.width} × {image.height} "
                f"pixels; got {width} × {height}. Do they belong together?"
            )
        return Annotated(name, image, maps, (), tuple(range(len(self.labels.categories))))

    def picture(self, index: int) -> PILImage.Image:
        """Read an image alone."""
        return read_photograph(self.images / self.pairs[index][0])

    def files(self) -> Iterable[Path]:
        """Name the lists, the images and the label maps."""
        yield from self.lists
        for name, label_map in self.pairs:
            yield self.images / name
            yield self.maps / label_map

    def open(self, title: str) -> Concepts:
        """Return the annotated images that this reader reads."""
        labels, names = self.labels, tuple(name for name, _ in self.pairs)
        return Concepts(title, names, labels.names, labels.category_of, labels.categories, self)


def pair_up(images: Path, maps: Path) -> tuple[tuple[str, str], ...]:
    """Pair images and label maps by their paths below their folders, without the suffix.

    Accents may be written in either of Unicode's forms: file systems differ in that.

    Raises
    ------
    ImageError
        If there are none, one is left over, two have the same path without the suffix, or a folder may not be read.
    """
    by_stem = [
        _list_by_stem(folder, suffixes, what)
        for folder, suffixes, what in (
            (images, PHOTOGRAPH_SUFFIXES, "images"),
            (maps, (*PHOTOGRAPH_SUFFIXES, ".npy"), "label maps"),
        )
    ]
    by_stem[1] = _respell(by_stem[0], by_stem[1])
    alone = [sorted(one.keys() - other.keys()) for one, other in (by_stem, by_stem[::-1])]
    if alone[0] or alone[1]:
        counts = " and ".join(
            f"{len(stems)} of {len(all_)} {what} are left over" + (f", such as {all_[stems[0]]}" if stems else "")
            for stems, all_, what in zip(alone, by_stem, ("images", "label maps"), strict=True)
        )
        raise ImageError(
            f"The images in {images} and the label maps in {maps} must pair up by their names without the suffix; "
            f"{counts}."
        )
    return tuple((by_stem[0][stem], by_stem[1][stem]) for stem in sorted(by_stem[0]))


def _respell(images: Mapping[str, str], maps: Mapping[str, str]) -> dict[str, str]:
    """Give the label maps that no image is called like the path of the image that is, but for Unicode's forms."""
    spellings = {compose_accents(stem): stem for stem in images.keys() - maps.keys()}
    return {stem if stem in images else spellings.get(compose_accents(stem), stem): name for stem, name in maps.items()}


def _list_by_stem(folder: Path, suffixes: Sequence[str], what: str) -> dict[str, str]:
    """List files by their paths without the suffix; raise `ImageError` if two have the same, or there is none."""
    files: dict[str, str] = {}
    for path in list_files_below(folder):
        if path.suffix.lower() not in suffixes:
            continue
        name = path.relative_to(folder).as_posix()
        stem = str(PurePosixPath(name).with_suffix(""))
        if stem in files:
            raise ImageError(
                f"The {what} in {folder} must differ in their names without the suffix; got {files[stem]} and {name}."
            )
        files[stem] = name
    if not files:
        raise ImageError(f"No {what} ({', '.join(suffixes)}) were found in {folder}.")
    return files
