"""How reports write numbers."""

from __future__ import annotations


def percent(share: float) -> str:
    """Write a share in per cent, with the digits that matter near 0 and 100."""
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{100 * share:.1f} %"
