"""Universal perturbations compared with chance, which is a random direction of each image's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import torch

from whyfooled.drawing.summary import Cell, SummaryTable
from whyfooled.studies.parts.over_images import Spread
from whyfooled.tensors.statistics import Interval, bootstrap_ratio

CHANCE = "Random, one for each image"
"""What every perturbation is compared with: a random direction of each image's own, of the ball's radius."""
D = "dissimilarity"
D_AND_FOOLED = (D, "fooled")


Measures = Mapping[str, Spread]
"""For each measure, D first, its numbers of the same images under every perturbation and under chance."""


def spread_measures(rows: pd.DataFrame, column: str, measures: Iterable[str], seed: int) -> Measures:
    """Spread out what perturbations, which are the entries of a column, do to images."""
    return {measure: Spread.of(rows, column, measure, seed) for measure in measures}


def over_chance(d: Spread) -> dict[str, Interval]:
    """Return how many times chance's the mean D under each perturbation is, of the images that have both."""
    pairs = {name: torch.stack([d.column(name), d.column(CHANCE)], dim=1) for name in d.entries}
    both = {name: pair.masked_fill(pair.isnan().any(1, keepdim=True), torch.nan) for name, pair in pairs.items()}
    return {name: bootstrap_ratio(pair, seed=d.seed) for name, pair in both.items()}


def tabulate(caption: str, where: Sequence[str], groups: Mapping[str, Measures], others: Iterable[str]) -> SummaryTable:
    """List every perturbation of every group: D, how it compares with chance's, and the other measures."""
    lines: list[tuple[Cell, ...]] = []
    for group, measures in groups.items():
        d, *means = (spread.means for spread in measures.values())
        minus, over = measures[D].minus(CHANCE), over_chance(measures[D])
        for name in d:
            beside = (None, None) if name == CHANCE else (minus[name], over[name])
            lines.append((group, name, d[name], *beside, *(mean[name] for mean in means)))
    columns = (*where, "D", "minus chance", "over chance", *others)
    return SummaryTable(caption, columns, lines, frozenset({"minus chance"}))
