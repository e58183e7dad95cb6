"""What the classes of a model are called: asked of ``whyfooled classes``, once for each model."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import final

from whyfooled.app.keeper import Keeper
from whyfooled.app.request import Started, write_model
from whyfooled.errors import ParameterError

_PATIENCE = 300.0
"""Seconds that a model may take to be loaded. [ours]"""


@final
class Classes:
    """The names of the classes of the models that were asked about.

    Parameters
    ----------
    started
        What was said when the page was started.
    keeper
        Who stops what is asked if the page ends.
    """

    def __init__(self, started: Started, keeper: Keeper) -> None:
        self._started, self._keeper = started, keeper
        self._asking = threading.Lock()
        self._known: dict[str, tuple[str, ...]] = {}

    def find(self, model: str) -> tuple[str, ...]:
        """Return the names of a model's classes; none where it has none, or cannot be loaded."""
        try:
            arguments = write_model(model, self._started)
        except ParameterError:
            return ()
        if model != self._started.model:
            # Names are published without weights, which would have to be fetched.
            arguments += ["--weights", "random"]
        # A model is loaded at a time: it may be large.
        with self._asking:
            if model not in self._known:
                self._known[model] = self._ask(arguments)
            return self._known[model]

    def _ask(self, arguments: list[str]) -> tuple[str, ...]:
        process = subprocess.Popen(
            [sys.executable, "-m", "whyfooled", "classes", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,
        )
        self._keeper.started(process.pid)
        try:
            said, _ = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
        finally:
            self._keeper.ended(process.pid)
        return tuple(said.splitlines()) if process.returncode == 0 else ()
