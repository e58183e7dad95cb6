"""Lists and tables as people and their programs write them: in UTF-8 or UTF-16, with commas, semicolons or tabs."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

SEPARATORS = (",", ";", "\t")
"""What may stand between the columns of a table; spreadsheets write semicolons where a comma is in the numbers."""

_MARKS = (
    # Those of UTF-32 first: one of them begins as one of UTF-16 does.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def read_text(path: Path) -> str:
    """Read a file in UTF-8, or in the Unicode that a mark at its beginning tells; line ends stay as they are.

    Raises
    ------
    OSError
        If it cannot be read.
    UnicodeError
        If it is something else.
    """
    content = path.read_bytes()
    encoding = next((encoding for mark, encoding in _MARKS if content.startswith(mark)), "utf-8")
    text = content.decode(encoding)
    # UTF-16 without its mark is valid UTF-8, with a zero for every other sign; a mark alone marks nothing.
    if "\0" in text or (content and not text):
        raise UnicodeError("it is no text")
    return text


def open_table(text: str, columns: Sequence[str]) -> tuple[StringIO, str]:
    """Return a table for `csv` to read, and what separates its columns: seen from the header, which must have these."""
    for separator in SEPARATORS:
        try:
            header = next(csv.reader(StringIO(text, newline=""), delimiter=separator), [])
        except csv.Error:
            continue
        if set(columns) <= {name.strip() for name in header}:
            return StringIO(text, newline=""), separator
    return StringIO(text, newline=""), SEPARATORS[0]
