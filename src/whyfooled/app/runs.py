"""The runs in the output folder: what they found, their files, and no file of any other place."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from whyfooled.errors import ImageError
from whyfooled.images import is_file, is_folder

PAGE = "report.html"
_ACCOUNTS = ("explanation.json", "perturbation.json", "units.json")
_PREVIEWS = ("adversarial.png", "clean.png")
_LONGEST_NAME = 40


@final
@dataclass(frozen=True)
class Run:
    """A folder with a report.

    Parameters
    ----------
    name
        The folder's.
    title
        What was found, in some words.
    attack, model
        How the image was attacked, and the model that was fooled; "" if it does not say.
    command
        The command line that wrote it; "" if it does not say.
    pictures
        The names of its pictures.
    written
        When, in seconds since 1970.
    """

    name: str
    title: str
    attack: str
    model: str
    command: str
    pictures: tuple[str, ...]
    written: float

    @property
    def preview(self) -> str | None:
        """The picture that stands for it."""
        return next((name for name in _PREVIEWS if name in self.pictures), None)


def list_runs(output: Path) -> list[Run]:
    """List the runs in the output folder, the newest first; what cannot be read is left out."""
    try:
        places = [place for place in output.iterdir() if not place.name.startswith(".")]
    except OSError:
        return []
    runs = [run for place in places if (run := find_run(output, place.name)) is not None]
    return sorted(runs, key=lambda run: run.written, reverse=True)


def find_run(output: Path, name: str | None) -> Run | None:
    """Return a run by its name; None if there is none in the output folder."""
    try:
        page = find_file(output, name or "", PAGE)
    except ImageError:
        return None
    return _read_run(page.parent, page.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1000)
def _read_run(folder: Path, written: int) -> Run:
    account = _read_account(folder)
    pictures = sorted(path.name for path in folder.glob("pictures/*.png"))
    said = account.get("parameters", {})
    attack = "made elsewhere" if "adversarial" in said else said.get("attack") or ""
    return Run(
        folder.name,
        _write_title(account, folder.name),
        str(attack),
        str(said.get("model") or ""),
        str(said.get("command") or ""),
        tuple(pictures),
        written / 1e9,
    )


def _read_account(folder: Path) -> dict[str, Any]:
    for name in _ACCOUNTS:
        try:
            read = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(read, dict) and isinstance(read.get("parameters", {}), dict):
            return read
    return {}


def _write_title(account: dict[str, Any], name: str) -> str:
    try:
        true, wrong = account["true"]["name"], account["wrong"]["name"]
        if account.get("outcome") != "failed":
            return f"{true}, taken for {wrong}"
        seen = account["predictions"]["adversarial"][0]["name"]
    except (KeyError, TypeError, IndexError):
        return name
    return f"{true}: not fooled" if seen in (true, wrong) else f"{true}, taken for {seen}, not for {wrong}"


def find_file(output: Path, run: str, name: str) -> Path:
    """Return a file of a run.

    Raises
    ------
    ImageError
        If there is none of that name in the run's folder, wherever links lead.
    """
    missing = ImageError(f"There is no file {name!r} of a run {run!r} in {output.name}.")
    if not run or run != Path(run).name or run.startswith("."):
        raise missing
    try:
        # Links are followed, so that none leads out.
        folder, root = (output / run).resolve(), output.resolve()
        path = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError):
        raise missing from None
    inside = path.relative_to(folder).parts if path.is_relative_to(folder) else (".",)
    hidden = any(part.startswith(".") for part in inside)
    if hidden or folder.parent != root or not is_folder(folder) or not is_file(path):
        raise missing
    return path


def delete_run(output: Path, name: str) -> None:
    """Delete a run's folder with all that is in it; nothing where there is no such run."""
    with contextlib.suppress(ImageError):
        shutil.rmtree(find_file(output, name, PAGE).parent, ignore_errors=True)


def name_run(output: Path, photograph: str | None, taken: Collection[str] = ()) -> str:
    """Make a name for a new run, after its photograph and the time: of a folder that is not there, and not `taken`."""
    stem = Path(photograph).name.partition(".")[0] if photograph else "example"
    plain = re.sub(r"[^\w-]+", "-", stem).strip("-_")[:_LONGEST_NAME] or "photograph"
    first = f"{plain}-{time.strftime('%Y-%m-%d-%H%M%S')}"
    numbered = (f"{first}-{number}" for number in range(2, 10_000))
    return next(name for name in (first, *numbered) if name not in taken and not (output / name).exists())
