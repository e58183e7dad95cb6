"""The names of classes, from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from whyfooled.errors import bad_parameter, first_line
from whyfooled.images import is_file


def read_class_list(path: Path, argument: str = "class_names") -> tuple[str, ...]:
    """Read the names of classes: a line for each, the first for class 0; or a JSON list, or object by number.

    Parameters
    ----------
    path
        The file, in UTF-8. One name is enough for two classes, of what is there or not. Of a list in JSON, as
        ImageNet's ``["n01440764", "tench"]``, the last is taken.
    argument
        What it is called in an error message.

    Raises
    ------
    ParameterError
        If there is no such file, or it has no such names.
    """
    if not is_file(path):
        raise bad_parameter(argument, "must be a file with a name for each class", path, "There is no such file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = _read_json(json.loads(text)) if path.suffix.lower() == ".json" else text.rstrip().splitlines()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise bad_parameter(
            argument, "must be a file with a name for each class", path, f"{first_line(error)}."
        ) from None
    names = [name.strip() for name in names]
    if not names or not all(names):
        empty = next((number for number, name in enumerate(names) if not name), None)
        given = f"{path}, with none" if empty is None else f"{path}, where that of class {empty} is empty"
        raise bad_parameter(argument, "must be a file with a name for each class", given)
    return tuple(names)


def _read_json(content: Any) -> list[str]:
    if isinstance(content, dict):
        numbered = sorted((int(number), name) for number, name in content.items())
        if [number for number, _ in numbered] != list(range(len(numbered))):
            raise ValueError("Its keys are not the numbers of classes from 0 on")
        content = [name for _, name in numbered]
    names = [name[-1] if isinstance(name, list) and name else name for name in content]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("It is no list of names")
    return names
