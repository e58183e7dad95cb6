"""Which photographs lie in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from whyfooled.errors import ImageError
from whyfooled.images.reading import is_file, is_folder

PHOTOGRAPH_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def photographs_below(folder: Path, deep: bool = True) -> list[Path]:
    """List the files in a folder, and in its folders if `deep`, with the suffix of an image, hidden ones left out."""
    files = (path for path in folder.glob("**/*" if deep else "*") if not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in PHOTOGRAPH_SUFFIXES and is_file(path))


def photographs_in(places: Sequence[str | Path]) -> list[Path]:
    """List image files: those given, and in folders all those below with the suffix of an image, hidden ones left out.

    Raises
    ------
    ImageError
        If a place is neither file nor folder, or nothing is found.
    """
    paths: list[Path] = []
    for place in map(Path, places):
        if is_file(place):
            paths.append(place)
            continue
        if not is_folder(place):
            raise ImageError(f"There is no image file or folder {place}.")
        paths += photographs_below(place)
    if not paths:
        where = ", ".join(map(str, places)) or "an empty list"
        raise ImageError(f"No photographs ({', '.join(PHOTOGRAPH_SUFFIXES)}) were found in {where}.")
    return paths


def common_folder(files: Sequence[Path]) -> tuple[Path, tuple[str, ...]]:
    """Name files by their paths below the folder that all have in common; a file given twice counts once."""
    # Not resolved: a link has the name that the user sees.
    whole = sorted({Path(os.path.normpath(file.absolute())) for file in files})
    folder = Path(os.path.commonpath([file.parent for file in whole]))
    return folder, tuple(file.relative_to(folder).as_posix() for file in whole)


def existing_folder(place: str | Path) -> Path:
    """Return an absolute path; raise `ImageError` if it is no folder."""
    folder = Path(place).absolute()
    if not is_folder(folder):
        raise ImageError(f"There is no folder {place}.")
    return folder
