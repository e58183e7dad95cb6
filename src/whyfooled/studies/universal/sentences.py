"""What the accounts of all studies of universal perturbations say in the same words."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from whyfooled.errors import ImageError
from whyfooled.studies.parts.attacked import ALREADY_WRONG
from whyfooled.studies.parts.right_images import TESTED
from whyfooled.studies.universal.fitting_images import HALF


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
    origin = next(iter(rows["fit"].dropna()), HALF)
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
