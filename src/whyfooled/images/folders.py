"""Which files, and which photographs, lie in a folder."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from whyfooled.errors import ImageError
from whyfooled.images.reading import is_file, is_folder

PHOTOGRAPH_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def list_files_below(folder: Path, deep: bool = True) -> list[Path]:
    """List the files in a folder, and in all folders below it if `deep`, sorted.

    Hidden files and folders, whose names begin with a dot, are left out. Links are followed, to folders too: each
    folder is entered once, by its own path rather than a link's, and a link that leads back up is not followed.

    Raises
    ------
    ImageError
        If a folder may not be read: it is named.
    """
    files: list[Path] = []
    links: list[Path] = []
    entered, folders = _identify_line(folder), [folder]
    while folders or links:
        # What no link leads to comes first, so that it keeps its own path.
        place = folders.pop() if folders else links.pop(0)
        if place != folder:
            if _identify(place) in entered:
                continue
            entered.add(_identify(place))
        for entry in _list_entries(place):
            path = place / entry.name
            if _leads_to_folder(entry):
                (links if entry.is_symlink() else folders).append(path)
            elif is_file(path) if entry.is_symlink() else entry.is_file():
                files.append(path)
        if not deep:
            break
    return sorted(files)


def list_folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder, sorted; hidden ones and links that lead back up are left out.

    Raises
    ------
    ImageError
        If the folder may not be read.
    """
    above = _identify_line(folder)
    paths = sorted(folder / entry.name for entry in _list_entries(folder) if _leads_to_folder(entry))
    return [path for path in paths if _identify(path) not in above]


def _list_entries(folder: Path) -> list[os.DirEntry[str]]:
    """List what is in a folder and is not hidden, by name; raise `ImageError` if it may not be read."""
    try:
        with os.scandir(folder) as listed:
            shown = [entry for entry in listed if not entry.name.startswith(".")]
        # A folder may be listed and all the same not be entered.
        if shown:
            shown[0].stat(follow_symlinks=False)
    except OSError as error:
        raise ImageError(f"The folder {folder} cannot be read: {error.strerror or error}.") from None
    return sorted(shown, key=lambda entry: entry.name)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    # A link may lead to itself, which is_dir() takes for an error.
    return is_folder(Path(entry.path)) if entry.is_symlink() else entry.is_dir()


def _identify_line(folder: Path) -> set[tuple[int, int]]:
    """Return what tells a folder and all above it from any others: a link to one of them leads back up."""
    whole = folder.resolve()
    return {_identify(place) for place in (whole, *whole.parents)}


def _identify(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def photographs_below(folder: Path, deep: bool = True) -> list[Path]:
    """List the files below a folder that have the suffix of an image, as `list_files_below` does."""
    return [path for path in list_files_below(folder, deep) if path.suffix.lower() in PHOTOGRAPH_SUFFIXES]


def photographs_in(places: Sequence[str | Path]) -> list[Path]:
    """List image files: those given, and in folders all those below with the suffix of an image.

    Of folders see `list_files_below`.

    Raises
    ------
    ImageError
        If a place is neither file nor folder, nothing is found, or a folder may not be read.
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


def compose_accents(name: str) -> str:
    """Write a name in the one form that most systems use: letters with their accents as one sign (NFC), not as two."""
    return unicodedata.normalize("NFC", name)
