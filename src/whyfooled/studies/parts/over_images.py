"""From a study's rows to columns of numbers over images, which is what intervals are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from whyfooled.errors import ImageError
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import Interval, bootstrap_means


def by_image(rows: pd.DataFrame, column: str, values: str) -> tuple[list[str], Tensor]:
    """Spread rows out: (n images, m) the mean of `values` for each image and each of the m entries of `column`.

    Entries come in the order in which the table has them first; NaN where an image has no such row.
    """
    entries = [str(entry) for entry in rows[column].unique()]
    spread = rows.pivot_table(index="index", columns=column, values=values, aggfunc="mean", observed=True, dropna=False)
    return entries, torch.tensor(spread[entries].to_numpy(dtype="float64", na_value=float("nan")))


def means(entries: Sequence[str], values: Tensor, seed: int) -> dict[str, Interval]:
    """Take the mean over images of each column, with its interval."""
    return dict(zip(entries, bootstrap_means(values, seed=seed), strict=True))


def differences(entries: Sequence[str], values: Tensor, best: str, seed: int) -> dict[str, Interval]:
    """Take the mean over images of each column minus the best one's, image by image."""
    return means(entries, values - values[:, [list(entries).index(best)]], seed)


def check_some_method(table: Table, references: Sequence[str] = ()) -> None:
    """Raise `ImageError` if no saliency method has a row (the references are none), with the first reason."""
    methods = set(table.read(["method"])["method"].dropna()) - set(references)
    if not methods:
        raise ImageError(f"No saliency method could be measured. {table.errors()['error'].iloc[0]}")


def highest(found: Mapping[str, Interval]) -> str:
    """Return the entry with the largest mean."""
    return max(found, key=lambda entry: found[entry].mean if found[entry].count else float("-inf"))
