"""What the page leaves behind when it ends, however it ends: nothing.

    python -m whyfooled.app.keeper UPLOADS OUTPUT

The page starts this process beside itself and holds the other end of its standard input, on which it says which jobs
run. When that end closes, because the page was stopped or killed, the jobs are stopped and the folder of uploads is
deleted. It imports nothing but the standard library, since it lives as long as the page does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, final

PATIENCE = 10.0
"""Seconds that a job has to end by itself, and delete what it was writing. [ours]"""
_STARTED, _ENDED = "+", "-"


@final
class Keeper:
    """The page's end of it.

    Parameters
    ----------
    uploads
        The folder to delete when the page has ended.
    output
        The folder that jobs write to, from which what a job that had to be killed left there is deleted.
    """

    def __init__(self, uploads: Path, output: Path) -> None:
        command = [sys.executable, "-m", "whyfooled.app.keeper", str(uploads), str(output)]
        # In a session of its own: what ends the page's whole group, such as Ctrl-C, leaves it alone.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def started(self, job: int) -> None:
        """Say that a job runs, by the number of its process, which leads a group of its own."""
        self._say(f"{_STARTED}{job}")

    def ended(self, job: int) -> None:
        """Say that it has ended."""
        self._say(f"{_ENDED}{job}")

    def close(self) -> None:
        """Stop the page's jobs and delete its folder; return when that is done."""
        # This closes the pipe first.
        self._process.communicate()

    def _say(self, line: str) -> None:
        pipe = self._process.stdin
        # If the keeper was killed, the page goes on without.
        with contextlib.suppress(BrokenPipeError):
            if pipe is not None:
                pipe.write(f"{line}\n".encode())
                pipe.flush()


def ask_to_end(job: int) -> None:
    """Ask a job to end, which it then does as after Ctrl-C."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(job, signal.SIGTERM)


def kill(job: int) -> None:
    """End a job that does not, and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(job, signal.SIGKILL)


def is_running(job: int) -> bool:
    """Tell whether a process has not ended yet."""
    try:
        os.kill(job, 0)
    except ProcessLookupError:
        return False
    return not _is_zombie(job)


def _is_zombie(job: int) -> bool:
    """Tell whether a process has ended and nobody has asked how; where that cannot be told, no."""
    try:
        return Path(f"/proc/{job}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def _follow(said: IO[str]) -> set[int]:
    """Read which jobs start and end until the page has ended; return those that run then."""
    running: set[int] = set()
    for line in said:
        job = int(line[1:])
        (running.add if line.startswith(_STARTED) else running.discard)(job)
    return running


def _stop(jobs: Iterable[int], output: Path) -> None:
    left = [job for job in jobs if is_running(job)]
    for job in left:
        ask_to_end(job)
    deadline = time.monotonic() + PATIENCE
    while any(map(is_running, left)) and time.monotonic() < deadline:
        time.sleep(0.05)
    stubborn = [job for job in left if is_running(job)]
    for job in stubborn:
        kill(job)
    if stubborn:
        from whyfooled.images.writing import sweep

        sweep(output)


def main(uploads: str, output: str) -> None:
    """Wait until the page has ended, and clear up after it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Who ends everything at once is to find nothing left behind either; it ends by itself, with the page.
        signal.signal(number, signal.SIG_IGN)
    _stop(_follow(sys.stdin), Path(output))
    shutil.rmtree(uploads, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
