"""What a report says of recovery: whether removing what a map points at makes the model right again; one verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from whyfooled.drawing.words import counted
from whyfooled.saliency.recovery import RANDOM, SHIFTED, VERDICT_FILL

Standing = Literal["better", "no better", "worse", "cannot tell"]


@final
@dataclass(frozen=True)
class RecoveryVerdict:
    """How the first map's order of the pixels stands to orders that say nothing.

    Parameters
    ----------
    right, points
        At how many of how many shares of black pixels the true class is predicted.
    random, shifted
        At how many it is with each random order, and with the map shifted to each of other places.
    """

    right: int
    points: int
    random: tuple[int, ...]
    shifted: tuple[int, ...]

    @property
    def chance(self) -> tuple[int, ...]:
        """At how many shares with all orders that say nothing."""
        return (*self.random, *self.shifted)

    @property
    def standing(self) -> Standing:
        """Better than chance, or worse, where none of the others does as well, or as badly.

        An order that does as well as can be, or as badly, cannot be told from others that do too.
        """
        if self.right > max(self.chance):
            return "better"
        if self.right < min(self.chance):
            return "worse"
        return "cannot tell" if self.right in (0, self.points) else "no better"


def judge_recovery(numbers: Mapping[str, Any]) -> RecoveryVerdict | None:
    """Judge the first map; None if there is none, or the adversarial image is still given its true class."""
    lost = numbers["predictions"]["adversarial"][0]["index"] != numbers["true"]["index"]
    if not numbers.get("recovery") or not lost:
        return None
    curves = {order["title"]: order["fills"][VERDICT_FILL] for order in numbers["recovery"]}
    judged = numbers["recovery"][0]["fills"][VERDICT_FILL]
    return RecoveryVerdict(
        right=judged["shares_right"][0],
        points=len(judged["fraction"]),
        random=tuple(curves[RANDOM]["shares_right"]),
        shifted=tuple(curves[SHIFTED]["shares_right"]),
    )


def write_counts(counts: Sequence[int]) -> str:
    """Write the mean of counts, and the least and the largest where they differ."""
    draws = counted(len(counts), "draw")
    if min(counts) == max(counts):
        return f"{counts[0]} in {f'each of {draws}' if len(counts) > 1 else draws}"
    return f"{write_whole(sum(counts) / len(counts))} ({min(counts)} to {max(counts)} in {draws})"


def write_shares(fractions: list[float]) -> str:
    """Write the first and the last share of black pixels."""
    return f"{100 * fractions[0]:g} to {100 * fractions[-1]:g} %"


def write_whole(number: float) -> str:
    """Write a mean of counts with one digit, and a whole one without."""
    return f"{number:.1f}".removesuffix(".0")
