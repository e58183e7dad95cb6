"""Places that one process works in at a time: a lock file beside them says which, for as long as it lives."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import final

from filelock import SoftFileLock, Timeout

_PATIENCE = 2.0
"""Seconds after which a lock file without a word is one whose process was killed as it made it."""


@final
@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Parameters
    ----------
    process
        The process's number; None if the lock file does not say.
    machine
        The machine's name; "" if the lock file does not say.
    since
        When the lock file was made.
    """

    process: int | None
    machine: str
    since: datetime

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine."""
        return self._machine_name == socket.gethostname()

    @property
    def _machine_name(self) -> str:
        # Containers of one machine are told apart by what stands behind its name.
        return self.machine.partition("?")[0]

    def __str__(self) -> str:
        machine = "this machine" if self.is_here else self._machine_name or "an unknown machine"
        process = "an unknown process" if self.process is None else f"process {self.process}"
        return f"{process} on {machine}, since {self.since:%Y-%m-%d %H:%M:%S}"


class HeldError(Exception):
    """Another process holds a lock."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(str(holder))
        self.holder = holder


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold a lock, a file with the process and the machine in it, until the block ends.

    The file is made in one step that network file systems know too, whose own locks cannot be relied on. That of a
    process of this machine that is gone, killed or before a restart, is taken over.

    Raises
    ------
    HeldError
        If another process holds it.
    OSError
        If the file cannot be made.
    """
    lock = _acquire(path)
    try:
        yield
    finally:
        lock.release()


def _acquire(path: Path) -> SoftFileLock:
    lock = SoftFileLock(path, timeout=0)
    started = time.monotonic()
    while True:
        try:
            lock.acquire()
            return lock
        except Timeout:
            holder = _find_holder(path)
        if holder is not None and (holder.process is not None or time.monotonic() - started > 2 * _PATIENCE):
            raise HeldError(holder) from None
        if holder is not None:
            # Its process is just writing into it, or was killed before it could.
            time.sleep(_PATIENCE / 20)
            if time.time() - holder.since.timestamp() > _PATIENCE:
                path.unlink(missing_ok=True)


def _find_holder(path: Path) -> Holder | None:
    """Read who holds a lock; None if its file is gone."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        since = datetime.fromtimestamp(path.stat().st_mtime)
    except OSError:
        return None
    number, machine = (*lines, "", "")[:2]
    return Holder(int(number) if number.isascii() and number.isdigit() else None, machine, since)
