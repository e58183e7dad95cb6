"""How reports write numbers and names."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percent(share: float) -> str:
    """Write a share in per cent, with the digits that matter near 0 and 100."""
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{100 * share:.1f} %"


def finite(value: float) -> float | None:
    """Return a number that JSON can write: None for one that is not finite."""
    return value if math.isfinite(value) else None


def listed(names: Sequence[str], most: int = 3) -> str:
    """Write names as a sentence lists them: "a, b and c"; those after the first few are counted."""
    kept = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    return " and ".join(filter(None, [", ".join(kept[:-1]), *kept[-1:]]))


def counted(count: int, noun: str, plural: str = "") -> str:
    """Write how many there are of something, by number: "1 map", "2 maps"; any other plural is given."""
    return f"{count} {by_number(count, noun, plural or f'{noun}s')}"


def by_number(count: int, singular: str, plural: str) -> str:
    """Choose a word by how many it is about."""
    return singular if count == 1 else plural


def shortened(name: str, longest: int = 40) -> str:
    """Cut a name that would leave no room for anything else."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def tied(text: str) -> str:
    """Keep numbers and their per cent signs on one line."""
    return text.replace(" %", "\u00a0%")
