"""Memory that was needed for a while, given back to the machine when that is over."""

from __future__ import annotations

import ctypes
import sys


def give_back_freed_memory() -> None:
    """Give back what is free; glibc keeps it otherwise, in a part of its own for each thread. Elsewhere nothing."""
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
