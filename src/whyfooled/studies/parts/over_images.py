"""From a study's rows to numbers over images, which is what intervals are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import pandas as pd
import torch
from torch import Tensor

from whyfooled.errors import ImageError
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import Interval, bootstrap_means


@final
@dataclass(frozen=True, eq=False)
class Spread:
    """One number of each image under each of several entries, such as attacks, methods or measures.

    Everything compares image by image: what an image has in common under all entries cancels.

    Parameters
    ----------
    entries
        Names of the m entries.
    values
        (n,m) Numbers of n images, float64; NaN where an image has none.
    seed
        Seed of the bootstrap.
    """

    entries: tuple[str, ...]
    values: Tensor
    seed: int

    @classmethod
    def of(cls, rows: pd.DataFrame, column: str, values: str, seed: int) -> Spread:
        """Spread rows out: the mean of `values` for each image and each entry of `column`, in the order of the rows."""
        entries = [str(entry) for entry in rows[column].unique()]
        wide = rows.pivot_table(
            index="index", columns=column, values=values, aggfunc="mean", observed=True, dropna=False
        )
        return cls(tuple(entries), _as_tensor(wide[entries]), seed)

    @classmethod
    def of_columns(cls, rows: pd.DataFrame, columns: Sequence[str], seed: int) -> Spread:
        """Take columns as the entries, of rows that are an image each."""
        return cls(tuple(columns), _as_tensor(rows[list(columns)]), seed)

    @property
    def means(self) -> dict[str, Interval]:
        """The mean over images of each entry, with its interval."""
        return dict(zip(self.entries, bootstrap_means(self.values, seed=self.seed), strict=True))

    @property
    def complete(self) -> int:
        """How many images have a number under every entry."""
        return int((~self.values.isnan().any(1)).sum())

    def column(self, entry: str) -> Tensor:
        """Return (n,) the numbers of an entry."""
        return self.values[:, self.entries.index(entry)]

    def minus(self, entry: str) -> dict[str, Interval]:
        """Return the mean over images of each entry minus a certain one."""
        return replace(self, values=self.values - self.column(entry)[:, None]).means

    def ratio(self, entry: str) -> dict[str, Interval]:
        """Return the geometric mean over images of each entry's positive number over that of a certain one."""
        logs = replace(self, values=self.values.log())
        return {name: interval.exp() for name, interval in logs.minus(entry).items()}

    def best(self, leaving_out: Sequence[str] = ()) -> str:
        """Return the entry with the largest mean."""
        return highest({entry: mean for entry, mean in self.means.items() if entry not in leaving_out})


def _as_tensor(numbers: pd.DataFrame) -> Tensor:
    return torch.tensor(numbers.to_numpy(dtype="float64", na_value=float("nan")))


def highest(intervals: Mapping[str, Interval]) -> str:
    """Return the entry with the largest mean."""
    return max(intervals, key=lambda entry: intervals[entry].mean if intervals[entry].count else float("-inf"))


def check_some_method(table: Table, references: Sequence[str] = ()) -> None:
    """Raise `ImageError` if no saliency method has a row (the references are none), with the first reason."""
    methods = set(table.read(["method"])["method"].dropna()) - set(references)
    if not methods:
        raise ImageError(f"No saliency method could be measured. {table.errors()['error'].iloc[0]}")


def by_image(rows: pd.DataFrame, column: str, values: str) -> tuple[list[str], Tensor]:
    """Spread rows out: what `Spread.of` does, for studies that do not use it yet."""
    spread = Spread.of(rows, column, values, 0)
    return list(spread.entries), spread.values


def means(entries: Sequence[str], values: Tensor, seed: int) -> dict[str, Interval]:
    """Take the mean over images of each column, with its interval."""
    return Spread(tuple(entries), values, seed).means


def differences(entries: Sequence[str], values: Tensor, best: str, seed: int) -> dict[str, Interval]:
    """Take the mean over images of each column minus the best one's, image by image."""
    return Spread(tuple(entries), values, seed).minus(best)
