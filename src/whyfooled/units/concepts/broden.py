"""Broden in its published layout: the annotated images of Network Dissection (Bau et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image as PILImage
from PIL import ImageOps
from torch import Tensor

from whyfooled.errors import ImageError
from whyfooled.images import is_file, is_folder, list_files_below, read_photograph, read_picture
from whyfooled.images.folders import existing_folder
from whyfooled.units.concepts.concepts import NOTHING, Annotated, Concepts
from whyfooled.units.concepts.rows import Damage, read_rows, whole_number

_SIZES = ("ih", "iw", "sh", "sw")
_IMAGES = "images"
_UNKNOWN = -2
_MOST_LABELS = 65536
"""Red + 256 · green is less."""


class _Row(NamedTuple):
    """One image: sizes are (height, width), label maps come with their categories, and `whole` are concepts."""

    image: str
    size: tuple[int, int]
    map_size: tuple[int, int]
    maps: tuple[tuple[int, str], ...]
    whole: tuple[int, ...]
    categories: tuple[int, ...]


def open_broden(place: str, title: str) -> Concepts:
    """List the images of Broden, or of another data set in its layout.

    ``ROOT/index.csv`` has a row for each image: its file below ``ROOT/images``, its split (all are taken), its size
    ``ih``, ``iw``, that of its label maps, ``sh``, ``sw``, and a column for each category of ``category.csv``. In a
    cell, separated by ``;``: numbers of labels that the whole image shows, and PNG files below ``ROOT/images`` with
    red + 256 · green as the label of a pixel. Where it is empty, the category is not annotated. The labels of a
    category are in ``c_CATEGORY.csv``, those of all in ``label.csv``. Label 0 shows nothing, and the category is
    annotated all the same: it stands for labels that were too rare to be named. A label of several categories is a
    concept in each.

    Parameters
    ----------
    place
        The folder ``ROOT``.
    title
        What was opened, as it was written.

    Raises
    ------
    ImageError
        If a file is missing, or has damaged lines: they are named. Later, if an image or a label map cannot be read, or
        has another size or other labels than these files say.
    """
    root = existing_folder(place)
    labels = _read_labels(root / "label.csv")
    categories = _read_categories(root / "category.csv")
    names: list[str] = []
    category_of: list[int] = []
    concepts: list[dict[int, int]] = []
    for number, category in enumerate(categories):
        members = _read_members(root / f"c_{category}.csv", labels)
        concepts.append({label: len(names) + place for place, label in enumerate(members)})
        names += [labels[label] for label in members]
        category_of += [number] * len(members)
    rows = _read_index(root, categories, concepts)
    reader = BrodenReader(root, rows, categories, tuple(concepts))
    return Concepts(title, tuple(row.image for row in rows), tuple(names), tuple(category_of), categories, reader)


@final
@dataclass(frozen=True)
class BrodenReader:
    """Reads images and label maps in Broden's layout.

    Parameters
    ----------
    root
        The folder, absolute.
    rows
        The images, and where their annotations are.
    categories
        The categories' names.
    concepts
        For each category, the concepts by their labels.
    """

    root: Path
    rows: tuple[_Row, ...]
    categories: tuple[str, ...]
    concepts: tuple[Mapping[int, int], ...]

    def read(self, index: int) -> Annotated:
        """Read one image with all its label maps."""
        row, image = self.rows[index], self.picture(index)
        maps = [self._read_map(category, name, row.map_size) for category, name in row.maps]
        nothing = torch.empty(0, *row.map_size, dtype=torch.int64)
        return Annotated(row.image, image, torch.stack(maps) if maps else nothing, row.whole, row.categories)

    def picture(self, index: int) -> PILImage.Image:
        """Read one image alone."""
        row = self.rows[index]
        path = self.root / _IMAGES / row.image
        image = read_photograph(path)
        _check_size(path, (image.height, image.width), row.size)
        return image

    def _read_map(self, category: int, name: str, size: tuple[int, int]) -> Int[Tensor, "h w"]:
        path = self.root / _IMAGES / name
        pixels = np.array(read_picture(path, lambda picture: _convert_colours(path, picture)))
        # Promoted first: 256 · green does not fit into 8 bits.
        red, green = torch.from_numpy(pixels).long().unbind(-1)[:2]
        values = red + 256 * green
        _check_size(path, (values.shape[0], values.shape[1]), size)
        known = {0: NOTHING, **self.concepts[category]}
        table = torch.full((_MOST_LABELS,), _UNKNOWN)
        table[list(known)] = torch.tensor(list(known.values()))
        concepts = table[values]
        unknown = concepts == _UNKNOWN
        if unknown.any():
            listed = f"labels of c_{self.categories[category]}.csv, or 0 for nothing"
            raise ImageError(f"{path} must hold {listed}; got {int(values[unknown][0])}.")
        return concepts

    def files(self) -> Iterable[Path]:
        """Name the tables, the images and the label maps."""
        for name in ("index", "label", "category", *(f"c_{category}" for category in self.categories)):
            yield self.root / f"{name}.csv"
        for row in self.rows:
            yield self.root / _IMAGES / row.image
            yield from (self.root / _IMAGES / name for _, name in row.maps)


def _convert_colours(path: Path, picture: PILImage.Image) -> PILImage.Image:
    if picture.mode not in ("RGB", "RGBA"):
        raise ImageError(f"{path} must have labels in red and green; got a picture of the mode {picture.mode}.")
    # Upright, as the photograph is.
    return ImageOps.exif_transpose(picture)


def _check_size(path: Path, given: tuple[int, int], size: tuple[int, int]) -> None:
    if given != size:
        raise ImageError(
            f"{path} must be {size[1]} × {size[0]} pixels, as index.csv says; got {given[1]} × {given[0]}."
        )


def _read_labels(path: Path) -> dict[int, str]:
    """Read all labels' names by their numbers."""
    damage = Damage(path)
    names: dict[int, str] = {}
    for line, row in read_rows(path, ("number", "name"), damage):
        number = whole_number(row["number"])
        if number is None or not 0 < number < _MOST_LABELS:
            damage.add(line, f"number must be a whole number from 1 to {_MOST_LABELS - 1}; got {row['number']!r}")
        elif number in names:
            damage.add(line, f"label {number} is there already, as {names[number]!r}")
        elif not row["name"]:
            damage.add(line, f"label {number} has no name")
        else:
            names[number] = row["name"]
    damage.check()
    return names


def _read_categories(path: Path) -> tuple[str, ...]:
    damage = Damage(path)
    categories: list[str] = []
    for line, row in read_rows(path, ("name",), damage):
        if not row["name"] or row["name"] in categories:
            damage.add(line, f"name must be there, and differ from the others; got {row['name']!r}")
        categories.append(row["name"])
    damage.check()
    return tuple(categories)


def _read_members(path: Path, labels: Mapping[int, str]) -> list[int]:
    """Read which labels a category has."""
    damage = Damage(path)
    numbers: dict[int, int] = {}
    names: dict[str, int] = {}
    for line, row in read_rows(path, ("number", "name"), damage):
        number = whole_number(row["number"])
        if number is None or number not in labels:
            damage.add(line, f"number must be a label of label.csv; got {row['number']!r}")
        elif row["name"] != labels[number]:
            damage.add(line, f"label {number} is called {row['name']!r}, and {labels[number]!r} in label.csv")
        elif number in numbers or row["name"] in names:
            first = numbers.get(number) or names[row["name"]]
            damage.add(line, f"label {number}, {row['name']!r}, is on line {first} already")
        else:
            numbers[number] = names[row["name"]] = line
    damage.check()
    return list(numbers)


def _read_index(root: Path, categories: tuple[str, ...], concepts: Sequence[Mapping[int, int]]) -> tuple[_Row, ...]:
    """Read the index; no picture is opened."""
    path = root / "index.csv"
    damage = Damage(path)
    there = _make_finder(root / _IMAGES)
    lines: dict[str, int] = {}
    rows = []
    for line, values in read_rows(path, ("image", *_SIZES, *categories), damage):
        strange = [name for name in values if name not in ("image", "split", *_SIZES, *categories)]
        if strange:
            raise ImageError(f"{path} must have columns for the categories of category.csv; got {strange[0]!r}, too.")
        row, reasons = _read_row(values, categories, concepts, there)
        if row.image in lines:
            reasons.append(f"image {row.image} is on line {lines[row.image]} already")
        for reason in reasons:
            damage.add(line, reason)
        lines[row.image] = line
        rows.append(row)
    damage.check()
    return tuple(rows)


def _read_row(
    values: Mapping[str, str],
    categories: Sequence[str],
    concepts: Sequence[Mapping[int, int]],
    there: Callable[[str], bool],
) -> tuple[_Row, list[str]]:
    """Read one image's row; and say what is wrong with it."""
    image, sizes = values["image"], [whole_number(values[name]) or 0 for name in _SIZES]
    wrong = [] if image and there(image) else [f"image must be a file below {_IMAGES}; got {image!r}"]
    for name, size in zip(_SIZES, sizes, strict=True):
        if size == 0:
            wrong.append(f"{name} must be a whole number of pixels, at least 1; got {values[name]!r}")
    maps: list[tuple[int, str]] = []
    whole: list[int] = []
    annotated = []
    for number, category in enumerate(categories):
        cell = [part.strip() for part in values[category].split(";") if part.strip()]
        annotated += [number] if cell else []
        for part in cell:
            annotation = _read_part(part, concepts[number], there)
            if isinstance(annotation, str):
                maps.append((number, annotation))
            elif annotation is None:
                listed = f"labels of c_{category}.csv, 0 for nothing, or PNG files below {_IMAGES}"
                wrong.append(f"{category} must have {listed}; got {part!r}")
            elif annotation != NOTHING:
                whole.append(annotation)
    once = tuple(dict.fromkeys(whole))
    return _Row(image, (sizes[0], sizes[1]), (sizes[2], sizes[3]), tuple(maps), once, tuple(annotated)), wrong


def _read_part(text: str, concepts: Mapping[int, int], there: Callable[[str], bool]) -> int | str | None:
    """Return a concept or `NOTHING` for a number, the file of a label map, or None for what is neither."""
    label = whole_number(text)
    if label is not None:
        return NOTHING if label == 0 else concepts.get(label)
    return text if text.lower().endswith(".png") and there(text) else None


def _make_finder(root: Path) -> Callable[[str], bool]:
    """Return what tells whether a file is below a folder: folders are listed once, which is quicker than to ask."""
    listed: dict[str, set[str]] = {}

    def there(name: str) -> bool:
        folder, _, file = name.rpartition("/")
        if folder not in listed:
            below = root / folder
            listed[folder] = {path.name for path in list_files_below(below, deep=False)} if is_folder(below) else set()
        # A file system may know a name that its listing writes otherwise, and a listing leaves hidden files out.
        return file in listed[folder] or is_file(root / name)

    return there
