"""Folders that long runs write to: each belongs to one run, and another one is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whyfooled.errors import OutputError
from whyfooled.images import write_whole


def claim(path: Path, run: Mapping[str, Any], *, begun: bool) -> None:
    """Write into a folder which run it belongs to, or find that it belongs to this one.

    Parameters
    ----------
    path
        The file that says so; its folder is made if need be.
    run
        Everything that makes it this run and no other, as plain values.
    begun
        Whether the folder holds results already. If it does not, another run's claim is taken over.

    Raises
    ------
    OutputError
        If another run has begun there, or the folder cannot be written.
    """
    folder = path.parent
    text = json.dumps(run, indent=1, ensure_ascii=False)
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"The output folder {folder} cannot be used: it is a file.")
        if path.exists():
            before, now = json.loads(path.read_text(encoding="utf-8")), json.loads(text)
            if not isinstance(before, dict):
                raise OutputError(f"The output folder {folder} cannot be used: {path.name} is not of a run.")
            differing = [key for key in now if before.get(key) != now[key]]
            if differing and begun:
                raise OutputError(
                    f"{folder} holds another run: {_describe_difference(before, now, differing[0])}. "
                    "Give another folder, or delete this one."
                )
            if not differing:
                return
        write_whole(path, text.encode())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"The output folder {folder} cannot be used: {reason}.") from None


def _describe_difference(before: Mapping[str, Any], now: Mapping[str, Any], key: str) -> str:
    if key == "images":
        new, gone = (sorted(set(one) - set(other)) for one, other in ((now[key], before[key]), (before[key], now[key])))
        which = f"{new[0]} is new" if new else f"{gone[0]} is gone" if gone else "their order is another"
        return f"its photographs are not the same ({which})"
    if key in _CHANGED:
        return _CHANGED[key]
    return f"its {key} was {before.get(key)}, now it is {now[key]}"


_CHANGED = {
    "model_digest": "its model had other weights",
    "images_digest": "its images, or their labels, are not the same",
    "fit_images_digest": "its images to fit to, or their labels, are not the same",
    "models_digests": "its other models had other weights",
    "class_map": "its labels stood for other classes of the model",
}
