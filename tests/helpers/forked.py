"""``python -m whyfooled`` in processes of its own, forked from one that has imported already what takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path

SLOW = [
    "jinja2",
    "matplotlib.figure",
    "pandas",
    "pyarrow.parquet",
    "rich.progress",
    "safetensors.torch",
    "scipy.stats",
    "skimage.segmentation",
    "timm",
    "torchvision",
    "typer",
    "whyfooled.attacks.many",
    "whyfooled.explanations.of_image",
    "whyfooled.studies",
    "whyfooled.universal",
]
"""What commands import. Not the command line itself: it takes the time from when it is imported."""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(SLOW)


class CommandProcess:
    """A command that runs in a folder; its streams are read when it has ended.

    Parameters
    ----------
    folder
        Where it runs.
    arguments
        What stands behind ``whyfooled``, or behind the script.
    script
        A script to run in place of ``python -m whyfooled``, seen from the folder.
    terminal
        The terminal that its errors and its progress go to, in place of a file.
    """

    def __init__(self, folder: Path, *arguments: str, script: str | None = None, terminal: str | None = None) -> None:
        self._streams = tempfile.TemporaryDirectory()
        self._out, self._err = (Path(self._streams.name) / name for name in ("out", "err"))
        files = (str(self._out), terminal or str(self._err))
        self._process = _forks.Process(target=_become, args=(str(folder), script, arguments, *files))
        self._process.start()

    def is_running(self) -> bool:
        return self._process.is_alive()

    def send(self, how: signal.Signals) -> None:
        if self._process.pid is not None and self.is_running():
            os.kill(self._process.pid, how)

    def end(self, timeout: float = 120) -> tuple[int, str, str]:
        """Wait until it has ended; return its exit code, or the signal's number below 0, and what it said."""
        self._process.join(timeout)
        if self.is_running():
            self._process.kill()
            raise TimeoutError(f"It was still running after {timeout} seconds.")
        out, err = (path.read_text() if path.exists() else "" for path in (self._out, self._err))
        return self._process.exitcode or 0, out, err


def _become(folder: str, script: str | None, arguments: tuple[str, ...], out: str, err: str) -> None:
    os.chdir(folder)
    for stream, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream)
        os.close(file)
    # Jobs in the background, and what they start, do not hear Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [script or "whyfooled", *arguments]
    if script is None:
        runpy.run_module("whyfooled", run_name="__main__")
    else:
        runpy.run_path(script, run_name="__main__")
