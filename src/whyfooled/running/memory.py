"""Memory that was needed for a while, given to other threads or back to the machine when that is over."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

_M_ARENA_MAX = -8
"""What glibc's ``malloc.h`` calls the greatest number of parts."""


def give_back_freed_memory() -> None:
    """Give back what is free; glibc keeps it otherwise. Elsewhere nothing."""
    trim = _find_in_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def share_freed_memory() -> None:
    """Let all threads that begin from now on use what any of them freed; glibc gives each a part of its own otherwise.

    It holds for the whole process, so that only a process of ours may ask for it, and not where its user has set
    ``MALLOC_ARENA_MAX``.
    """
    limit = _find_in_glibc("mallopt")
    if limit is not None and "MALLOC_ARENA_MAX" not in os.environ:
        limit(_M_ARENA_MAX, 1)


def _find_in_glibc(name: str) -> Any:
    """Return a function of the C library that Linux programs use; None where it has none of that name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
