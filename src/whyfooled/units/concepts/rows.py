"""Tables of annotations: CSV files whose damaged lines are all reported at once, each by its number."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from whyfooled.errors import ImageError
from whyfooled.sources.text_files import open_table, read_text

_MOST = 5
"""How many damaged lines a message says more of than that they are there."""


@final
@dataclass(frozen=True)
class Damage:
    """Collects what is wrong with the lines of a file.

    Parameters
    ----------
    path
        The file.
    reasons
        For each damaged line, its number and what is wrong with it.
    """

    path: Path
    reasons: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, reason: str) -> None:
        """Note that something is wrong with a line, counted from 1."""
        self.reasons.append((line, reason))

    def check(self) -> None:
        """Raise `ImageError` if anything was noted: the first lines with reasons, and how many there are in all."""
        if not self.reasons:
            return
        lines = sorted({line for line, _ in self.reasons})
        listed = "; ".join(f"line {line}: {reason}" for line, reason in sorted(self.reasons)[:_MOST])
        more = len(self.reasons) - _MOST
        rest = "" if more <= 0 else f"; and {more} more, up to line {lines[-1]}"
        count = "1 damaged line" if len(lines) == 1 else f"{len(lines)} damaged lines"
        raise ImageError(f"{self.path} has {count}: {listed}{rest}.")


def read_rows(path: Path, columns: Sequence[str], damage: Damage) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file with a header; lines with too few or too many values are noted, and left out.

    In UTF-8 or UTF-16, with commas, semicolons or tabs between the columns.

    Parameters
    ----------
    path
        The file.
    columns
        Columns that it must have; it may have others.
    damage
        Where damaged lines are noted.

    Returns
    -------
    list
        For each row, the line that it ends on, and its values by column, without blanks around them.

    Raises
    ------
    ImageError
        If the file cannot be read, or has not these columns.
    """
    rows = []
    try:
        table, separator = open_table(read_text(path), columns)
        reader = csv.reader(table, delimiter=separator, strict=True)
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in columns if name not in header]
        if missing:
            raise ImageError(f"{path} must have the columns {', '.join(columns)}; {', '.join(missing)} is missing.")
        for values in reader:
            if len(values) == len(header):
                texts = (value.strip() for value in values)
                rows.append((reader.line_num, dict(zip(header, texts, strict=True))))
            elif values:
                damage.add(reader.line_num, f"it must have {len(header)} values; got {len(values)}")
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeError:
        raise ImageError(f"{path} cannot be read: it is not text in UTF-8.") from None
    except csv.Error as error:
        raise ImageError(f"{path} cannot be read: line {reader.line_num}: {error}.") from None
    return rows


def whole_number(text: str) -> int | None:
    """Return the number that at most nine digits write; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
