"""What visitors dropped: kept while their page is open, copied for each job, and deleted after both."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import final

from whyfooled.errors import ImageError

_ABANDONED = 600.0
"""Seconds after which a file that no open page holds is deleted: it came from one that was closed too early. [ours]"""


@final
class Uploads:
    """The files that were dropped.

    Parameters
    ----------
    folder
        The folder for all of them, and for the jobs' copies.
    """

    def __init__(self, folder: Path) -> None:
        self.dropped = folder / "dropped"
        self._inputs = folder / "jobs"
        self._held: dict[str, dict[str, Path]] = {}
        self._changing = threading.Lock()
        for place in (self.dropped, self._inputs):
            place.mkdir(parents=True)

    def hold(self, visit: str, field: str, file: str | None) -> None:
        """Take note that a visit has a file in a field, or none any more; what no visit has is deleted."""
        with self._changing:
            held = self._held.setdefault(visit, {})
            before = held.pop(field, None)
            if file is not None:
                held[field] = Path(file).resolve()
            self._delete_unheld(before)

    def leave(self, visit: str) -> None:
        """Delete what a visit alone has: its page was closed."""
        with self._changing:
            self._delete_unheld(*self._held.pop(visit, {}).values())

    def _delete_unheld(self, *files: Path | None) -> None:
        # The same file dropped on two pages is one.
        held = {file for fields in self._held.values() for file in fields.values()}
        abandoned = [
            path
            for path in self.dropped.rglob("*")
            if path.is_file() and time.time() - path.stat().st_mtime > _ABANDONED
        ]
        for file in {*filter(None, files), *abandoned} - held:
            if file.is_relative_to(self.dropped.resolve()):
                file.unlink(missing_ok=True)

    def copy(self, files: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
        """Copy files for a job; return the folder of the copies, and the copies by the fields of the files.

        Raises
        ------
        ImageError
            If a file is not there any more, or was never dropped here.
        """
        inputs = self._inputs / secrets.token_hex(4)
        copies: dict[str, str] = {}
        for field, file in files.items():
            path = Path(file).resolve()
            goal = inputs / field / path.name
            goal.parent.mkdir(parents=True)
            try:
                if not path.is_relative_to(self.dropped.resolve()):
                    raise FileNotFoundError
                _link_or_copy(path, goal)
            except OSError:
                shutil.rmtree(inputs, ignore_errors=True)
                raise ImageError(f"{path.name} is not here any more. Drop it again.") from None
            copies[field] = str(goal)
        return inputs, copies


def _link_or_copy(path: Path, goal: Path) -> None:
    try:
        os.link(path, goal)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        shutil.copyfile(path, goal)
