"""Photographs from files and folders, and from folders that have one folder for each class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from PIL import Image as PILImage

from whyfooled.errors import ImageError, warn
from whyfooled.images import list_folders_in, photographs_below, photographs_in, read_photograph
from whyfooled.images.folders import common_folder, existing_folder
from whyfooled.sources._labels import as_indices, match_labels, read_labels
from whyfooled.sources._source import Source


@final
@dataclass(frozen=True)
class PhotographReader:
    """Reads photographs below a folder.

    Parameters
    ----------
    folder
        The folder, absolute: a worker process may run elsewhere.
    names
        Their paths below it.
    """

    folder: Path
    names: tuple[str, ...]

    def read(self, index: int) -> PILImage.Image:
        """Read one photograph."""
        return read_photograph(self.folder / self.names[index])

    def files(self) -> Iterable[Path]:
        """Name the photographs."""
        return (self.folder / name for name in self.names)


def open_photographs(places: Sequence[str | Path], labels: Path | None, title: str) -> Source:
    """List photographs, with labels from a CSV file if there is one."""
    folder, names = common_folder(photographs_in(places))
    reader = PhotographReader(folder, names)
    if labels is None:
        return Source(title, names, ((),) * len(names), reader)
    shown, class_names = as_indices(match_labels(read_labels(labels), folder, names))
    return Source(title, names, shown, reader, class_names)


def open_tree(place: str, title: str) -> Source:
    """List a folder that has a folder for each class: their names, sorted, are the class names."""
    root = existing_folder(place)
    classes = list_folders_in(root)
    if not classes:
        raise ImageError(f"{root} has no folder for a class in it. For photographs without labels, give it as {place}.")
    names, shown = list_photographs_by_class(root, classes)
    return Source(title, names, shown, PhotographReader(root, names), tuple(folder.name for folder in classes))


def list_photographs_by_class(
    root: Path, folders: Sequence[Path], classes: Sequence[int] | None = None
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """List the photographs in each class's folder: their paths below `root`, and their labels.

    `classes` are the folders' class indices; their places in the list if None.
    """
    names: list[str] = []
    shown: list[tuple[int, ...]] = []
    for folder, label in zip(folders, range(len(folders)) if classes is None else classes, strict=True):
        photographs = [path.relative_to(root).as_posix() for path in photographs_below(folder)]
        names += photographs
        shown += [(label,)] * len(photographs)
    if not names:
        raise ImageError(f"No photographs were found in the {len(folders)} folders of {root}.")
    stray = [path.name for path in photographs_below(root, deep=False)]
    if stray:
        warn(
            f"{len(stray)} photographs in {root} are in no class's folder and are left out, such as {stray[0]}.",
            stacklevel=4,
        )
    return tuple(names), tuple(shown)
