"""Versions of the files that are kept: written into each, and checked before anything else in it is believed."""

from __future__ import annotations

from pathlib import Path

from whyfooled.errors import ImageError


def check_format(place: Path, what: str, written: object, known: int, command: str) -> None:
    """Raise `ImageError` if a file is of a version of its format that is not read here.

    Parameters
    ----------
    place
        The file or its folder.
    what
        What it is, such as "dissection".
    written
        The version that it says it has.
    known
        The newest version that is read here; all before it are, too.
    command
        The command that makes it again.
    """
    if type(written) is not int or not 1 <= written <= known:
        raise ImageError(
            f"The {what} in {place} was written by another version of whyfooled: its format is {written}, and this one "
            f"reads {known}. Read it with that version, or make it again: {command}."
        )
