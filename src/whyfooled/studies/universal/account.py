"""What the accounts of all studies of universal perturbations share: sentences, and the comparison with chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

import pandas as pd
import torch

from whyfooled.drawing.summary import Cell
from whyfooled.errors import ImageError
from whyfooled.studies.parts.attacked import ALREADY_WRONG
from whyfooled.studies.parts.over_images import Spread
from whyfooled.studies.parts.right_images import TESTED
from whyfooled.studies.universal.fitting_images import HALF
from whyfooled.tensors.statistics import Interval, bootstrap_ratio

CHANCE = "Random, one for each image"
"""What every perturbation is compared with: a random direction of each image's own, of the ball's radius."""
D = "dissimilarity"
D_AND_FOOLED = (D, "fooled")


def who_was_tested(rows: pd.DataFrame, images: int) -> str:
    """Say how many images were tested, how many were wrong before, and which others were fitted to.

    `rows` are those of a table with the columns index, outcome, fit and fit_images; `images`, how many it was given.
    """
    wrong = rows.loc[rows["outcome"] == ALREADY_WRONG, "index"].nunique()
    count = rows.loc[rows["outcome"] == TESTED, "index"].nunique()
    if not count:
        raise ImageError(f"None of the {images} test images is classified as what it shows, so none can be used.")
    left_out = f"; {wrong} that the classifier gets wrong were left out" if wrong else ""
    return f"{count} images were tested{left_out}. {what_was_fitted_to(rows)}"


def what_was_fitted_to(rows: pd.DataFrame) -> str:
    """Say how many images perturbations were fitted to, and which; of rows with the columns fit and fit_images."""
    known = rows.loc[rows["fit"].notna(), "fit"]
    origin = known.iloc[0] if len(known) else HALF
    return (
        f"Perturbations were fitted to {from_to(rows['fit_images'].dropna())} other images that the classifier gets "
        f"right, from {origin}; by content, none of them is among those tested."
    )


def from_to(numbers: Iterable[float]) -> str:
    """Write the smallest and the largest of some numbers; ``no`` if there is none."""
    ordered = sorted({int(number) for number in numbers})
    return "no" if not ordered else f"{ordered[0]}" if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"


def first_measured(rows: pd.DataFrame) -> pd.Series:
    """Return a row that was measured, for what all of them say."""
    return rows[rows["method"].notna()].iloc[0]


def ball_text(row: pd.Series) -> str:
    """Say what the radius measures, by a row."""
    norm = "Euclidean length" if row["ball"] == "l2" else "largest change of a value"
    return f"{norm}, for values from 0 to {int(row['scale'])}"


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
    means = {measure: spread.means for measure, spread in spreads.items()}
    d = spreads[D]
    return Comparison(d, means, d.minus(CHANCE), {name: _over_chance(d, name) for name in d.entries})


def _over_chance(d: Spread, name: str) -> Interval:
    both = torch.stack([d.column(name), d.column(CHANCE)], dim=1)
    # Of the images that have both.
    return bootstrap_ratio(both.masked_fill(both.isnan().any(1, keepdim=True), torch.nan), seed=d.seed)
