"""Universal perturbations compared with chance, which is a random direction of each image's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

import pandas as pd
import torch

from whyfooled.drawing.summary import Cell, SummaryTable
from whyfooled.studies.parts.over_images import Spread
from whyfooled.tensors.statistics import Interval, bootstrap_ratio

CHANCE = "Random, one for each image"
"""What every perturbation is compared with: a random direction of each image's own, of the ball's radius."""
D = "dissimilarity"
D_AND_FOOLED = (D, "fooled")


@final
@dataclass(frozen=True, eq=False)
class Comparison:
    """What perturbations do to the same images, and how each compares with chance, which is among them.

    Parameters
    ----------
    d
        D of every image under every perturbation.
    means
        For each measure, D first, its mean under each perturbation.
    minus_chance, over_chance
        The mean D under each perturbation, less chance's and over it, paired by image.
    """

    d: Spread
    means: Mapping[str, Mapping[str, Interval]]
    minus_chance: Mapping[str, Interval]
    over_chance: Mapping[str, Interval]

    def cells(self, name: str) -> tuple[Cell, ...]:
        """Return D under a perturbation, less chance's and over it (chance itself leaves those empty), and the rest."""
        d, *others = (intervals[name] for intervals in self.means.values())
        beside = (None, None) if name == CHANCE else (self.minus_chance[name], self.over_chance[name])
        return (d, *beside, *others)


def compare_with_chance(rows: pd.DataFrame, column: str, measures: Iterable[str], seed: int) -> Comparison:
    """Compare perturbations, which are the entries of a column, in some measures, of which D is the first."""
    spreads = {measure: Spread.of(rows, column, measure, seed) for measure in measures}
    d = spreads[D]
    means = {measure: spread.means for measure, spread in spreads.items()}
    return Comparison(d, means, d.minus(CHANCE), {name: _over_chance(d, name) for name in d.entries})


def _over_chance(d: Spread, name: str) -> Interval:
    both = torch.stack([d.column(name), d.column(CHANCE)], dim=1)
    # Of the images that have both.
    return bootstrap_ratio(both.masked_fill(both.isnan().any(1, keepdim=True), torch.nan), seed=d.seed)


def tabulate(
    caption: str, where: tuple[str, str], compared: Mapping[str, Comparison], others: Iterable[str]
) -> SummaryTable:
    """List every perturbation of every comparison: `where` they stand, D, D beside chance's, and other measures."""
    lines = [
        (key, name, *comparison.cells(name)) for key, comparison in compared.items() for name in comparison.d.entries
    ]
    columns = (*where, "D", "minus chance", "over chance", *others)
    return SummaryTable(caption, columns, lines, frozenset({"minus chance"}))
