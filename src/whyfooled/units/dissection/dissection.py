"""A dissection, how it is written to a folder, and how it is read back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from whyfooled.images import output_folder
from whyfooled.units.dissection.results import DissectionRecord
from whyfooled.units.dissection.saved import read_dissection
from whyfooled.units.dissection.unfinished import discard_unfinished


@final
@dataclass(frozen=True, eq=False, repr=False)
class Dissection(DissectionRecord):
    """What the units of some layers detect. Made by `dissect`; `save` writes everything to a folder.

    Its fields and tables are those of `DissectionRecord`.
    """

    def save(self, folder: str | Path) -> Path:
        """Write ``index.html``, Parquet tables, a figure, pictures and everything that `load_dissection` needs.

        Raises
        ------
        OutputError
            If the folder cannot be written; then nothing is.
        ImageError
            If a picture to be shown can no longer be read.
        """
        from whyfooled.units.dissection.page import write_files

        with output_folder(folder) as staging:
            write_files(self, staging)
        discard_unfinished(Path(folder))
        return Path(folder)


def load_dissection(folder: str | Path) -> Dissection:
    """Read what `Dissection.save` wrote: every field but `source` and `fit`, exactly.

    Raises
    ------
    ImageError
        If the folder holds no dissection, a damaged or unfinished one, or one of another version of whyfooled.
    """
    return read_dissection(folder, Dissection)
