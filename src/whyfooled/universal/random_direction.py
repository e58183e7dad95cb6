"""A random direction: what chance does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from whyfooled.registry import Card
from whyfooled.types import Image
from whyfooled.universal._fitting import Fitting
from whyfooled.universal._method import UniversalMethod


@final
@dataclass(frozen=True)
class RandomDirection(UniversalMethod):
    """A perturbation drawn uniformly from the surface of the l2 ball, or from the corners of the l-infinity ball.

    What every other universal perturbation is compared with. Fitting draws it, whatever the images show.
    """

    card: ClassVar[Card] = Card(
        name="random",
        title="Random direction",
        summary="One random perturbation of the largest size allowed: what chance does.",
        source="Ehsani Oskouie & Farnia 2022, arXiv 2212.03095, sec. 5",
        cost="1 forward to see which images can be used",
    )
    breaks_maps: ClassVar[bool] = False

    def find(self, fit: Fitting) -> Image:
        """Draw it."""
        return self.largest(fit.start())
