"""What is written for others to read names files, and not the folders of the machine that they lay in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from whyfooled.images import is_folder

_START = re.compile(r"(?<![\w./\\~:-])(?:[A-Za-z]:)?[/\\](?=[^\s/\\])")
_SEPARATOR = re.compile(r"[/\\]")
_DEEPEST = 64
"""How many folders within one another are looked for."""


def hide_folders(text: str) -> str:
    """Leave out of a text the folders of absolute paths, so that each file is called by its name alone.

    A folder is what is one on this machine, so paths with spaces are read right, and other slashes stay.
    """
    parts, end = [], 0
    for start in _START.finditer(text):
        if start.start() >= end:
            parts.append(text[end : start.start()])
            end = _end_of_folders(text, start.start(), start.end())
    return "".join([*parts, text[end:]])


def hide_all_folders(value: Any) -> Any:
    """Do so in every text of plain values, such as those of a JSON file; the keys of dictionaries stay as they are."""
    if isinstance(value, str):
        return hide_folders(value)
    if isinstance(value, Mapping):
        return {key: hide_all_folders(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [hide_all_folders(inner) for inner in value]
    return value


def _end_of_folders(text: str, start: int, first: int) -> int:
    """Return where the longest existing folder ends whose path starts in a text; its start if there is none."""
    ends = [separator.end() for separator in islice(_SEPARATOR.finditer(text, first), _DEEPEST)]
    return next((end for end in reversed(ends) if is_folder(Path(text[start:end]))), start)
