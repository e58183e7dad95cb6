"""Universal perturbations compared with chance, which is what random directions do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import pandas as pd
import torch

from whyfooled.drawing.summary import Cell, SummaryTable
from whyfooled.studies.parts.over_images import Spread
from whyfooled.tensors.statistics import Interval, RandomDraws, bootstrap_ratio

CHANCE = "Random directions"
"""What every perturbation is compared with: the mean over several random directions, of the ball's radius."""
D = "dissimilarity"
D_AND_FOOLED = (D, "fooled")


@final
@dataclass(frozen=True, eq=False)
class Compared:
    """What perturbations do to images, and what random directions do.

    Parameters
    ----------
    measures
        For each measure, D first, its numbers of the same images under every perturbation and, in the mean, under the
        random directions.
    directions
        D under each of the random directions.
    """

    measures: Mapping[str, Spread]
    directions: Spread

    @property
    def d(self) -> Spread:
        """D of every image under every perturbation and, in the mean, under the random directions."""
        return self.measures[D]

    @cached_property
    def less_chance(self) -> Spread:
        """How much larger D is than in the mean of the random directions, as sure as one of them would be."""
        return replace(self.d.less(CHANCE), draws=self._draws)

    @cached_property
    def over_chance(self) -> dict[str, Interval]:
        """How many times chance's the mean D under each perturbation is, of the images that have both."""
        pairs = {name: torch.stack([self.d.column(name), self.d.column(CHANCE)], dim=1) for name in self.d.entries}
        both = {name: pair.masked_fill(pair.isnan().any(1, keepdim=True), torch.nan) for name, pair in pairs.items()}
        ratios = {name: bootstrap_ratio(pair, seed=self.d.seed) for name, pair in both.items()}
        chance = self.d.means[CHANCE].mean
        return {name: ratio.widen(ratio.mean * self._draws.reach / chance) for name, ratio in ratios.items()}

    @property
    def _draws(self) -> RandomDraws:
        return RandomDraws(tuple(mean.mean for mean in self.directions.means.values()))


def compare(rows: pd.DataFrame, column: str, measures: Iterable[str], seed: int) -> Compared:
    """Spread out what perturbations, which are the entries of a column, do to images; `CHANCE` is one of them."""
    chance = rows[rows[column] == CHANCE]
    directions = Spread.of(chance.assign(direction=chance["direction"].map("{:.0f}".format)), "direction", D, seed)
    return Compared({measure: Spread.of(rows, column, measure, seed) for measure in measures}, directions)


def tabulate(caption: str, where: Sequence[str], groups: Mapping[str, Compared], others: Iterable[str]) -> SummaryTable:
    """List every perturbation of every group: D, how it compares with chance's, and the other measures."""
    lines: list[tuple[Cell, ...]] = []
    for group, compared in groups.items():
        d, *means = (spread.means for spread in compared.measures.values())
        minus, over = compared.less_chance.means, compared.over_chance
        for name in d:
            beside = (None, None) if name == CHANCE else (minus[name], over[name])
            lines.append((group, name, d[name], *beside, *(mean[name] for mean in means)))
    columns = (*where, "D", "minus chance", "over chance", *others)
    return SummaryTable(caption, columns, lines, frozenset({"minus chance"}))
