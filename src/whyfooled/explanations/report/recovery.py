"""What a report says of recovery: whether removing what a map points at makes the model right again; one verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from whyfooled.saliency.recovery import VERDICT_FILL

Standing = Literal["better", "no better", "worse"]


@final
@dataclass(frozen=True)
class RecoveryVerdict:
    """How one order of the pixels stands to random ones.

    Parameters
    ----------
    right, points
        At how many of how many shares of black pixels the true class is predicted.
    chance, low, high
        At how many it is with a random order: on average, at least, at most.
    orders
        How many random orders there were.
    """

    right: int
    points: int
    chance: float
    low: int
    high: int
    orders: int

    @property
    def standing(self) -> Standing:
        """Better than chance, or worse, where no random order does as well, or as badly."""
        if self.right > self.high:
            return "better"
        return "worse" if self.right < self.low else "no better"


def judge_recovery(order: Mapping[str, Any], random: Mapping[str, Any]) -> RecoveryVerdict:
    """Compare an order's figures with those of random orders, where pixels are made black."""
    judged, chance = (one["fills"][VERDICT_FILL] for one in (order, random))
    counts = chance["shares_right"]
    return RecoveryVerdict(
        right=judged["shares_right"][0],
        points=len(judged["fraction"]),
        chance=sum(counts) / len(counts),
        low=min(counts),
        high=max(counts),
        orders=len(counts),
    )


def judge_headline(numbers: Mapping[str, Any]) -> RecoveryVerdict | None:
    """Judge the first map; None if there is none, or the adversarial image is still given its true class."""
    lost = numbers["predictions"]["adversarial"][0]["index"] != numbers["true"]["index"]
    if not numbers.get("recovery") or not lost:
        return None
    return judge_recovery(numbers["recovery"][0], numbers["recovery"][-1])


def write_shares(fractions: list[float]) -> str:
    """Write the first and the last share of black pixels."""
    return f"{100 * fractions[0]:g} to {100 * fractions[-1]:g} %"


def write_whole(number: float) -> str:
    """Write a mean of counts with one digit, and a whole one without."""
    return f"{number:.1f}".removesuffix(".0")
