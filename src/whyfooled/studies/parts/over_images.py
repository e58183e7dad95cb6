"""From a study's rows to numbers over images, which is what intervals are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whyfooled.drawing.summary import Cell, SummaryTable
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
    differences
        Whether the numbers are differences, image by image.
    """

    entries: tuple[str, ...]
    values: Tensor
    seed: int
    differences: bool = False

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

    @cached_property
    def means(self) -> dict[str, Interval]:
        """The mean over images of each entry, with its interval."""
        intervals = bootstrap_means(self.values, seed=self.seed, differences=self.differences)
        return dict(zip(self.entries, intervals, strict=True))

    @property
    def complete(self) -> int:
        """How many images have a number under every entry."""
        return int((~self.values.isnan().any(1)).sum())

    def column(self, entry: str) -> Tensor:
        """Return (n,) the numbers of an entry."""
        return self.values[:, self.entries.index(entry)]

    def minus(self, entry: str) -> dict[str, Interval]:
        """Return the mean over images of each other entry minus a certain one."""
        gaps = replace(self, values=self.values - self.column(entry)[:, None], differences=True).means
        return {name: gap for name, gap in gaps.items() if name != entry}

    def gaps(self, pairs: Mapping[str, tuple[str, str]]) -> Spread:
        """Take the first entry of each pair minus its second, image by image, under the pair's name."""
        gaps = [self.column(first) - self.column(second) for first, second in pairs.values()]
        return Spread(tuple(pairs), torch.stack(gaps, dim=1), self.seed, differences=True)

    def ratio(self, entry: str) -> dict[str, Interval]:
        """Return the geometric mean over images of each entry's positive number over that of a certain one."""
        log = self.column(entry).log()
        logs = torch.stack([self.column(name).log() - log for name in self.entries]).T
        return {name: interval.exp() for name, interval in replace(self, values=logs).means.items()}

    def best(self, leaving_out: Sequence[str] = ()) -> str:
        """Return the entry with the largest mean."""
        means = {entry: mean for entry, mean in self.means.items() if entry not in leaving_out}
        return max(means, key=lambda entry: means[entry].mean if means[entry].count else float("-inf"))


def _as_tensor(numbers: pd.DataFrame) -> Tensor:
    # Of two columns in reverse pandas may give a view backwards, which torch does not take.
    return torch.from_numpy(np.array(numbers.to_numpy(dtype="float64", na_value=float("nan")), order="C"))


def group_rows(rows: pd.DataFrame, *columns: str) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Go through the rows of each combination of entries of some columns, in the order in which the table has them."""
    for labels, group in rows.groupby(list(columns), observed=True):
        yield tuple(map(str, labels)), group


def swap_keys(nested: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, Interval]]:
    """Turn mappings inside a mapping inside out; all of them have the keys of the first."""
    return {key: {name: inner[key] for name, inner in nested.items()} for key in next(iter(nested.values()))}


def tabulate_means(
    caption: str, rows: pd.DataFrame, columns: Mapping[str, str], seed: int, by: str = "attack"
) -> SummaryTable:
    """List the means over images of some columns, given with their headings, for each entry of another."""
    means = [Spread.of(rows, by, column, seed).means for column in columns]
    lines: list[tuple[Cell, ...]] = [(entry, *(of_column[entry] for of_column in means)) for entry in means[0]]
    return SummaryTable(caption, (by, *columns.values()), lines)


def check_some_method(table: Table, references: Sequence[str] = ()) -> None:
    """Raise `ImageError` if no saliency method has a row (the references are none), with the first reason."""
    methods = set(table.read(["method"])["method"].dropna()) - set(references)
    if not methods:
        raise ImageError(f"No saliency method could be measured. {table.errors()['error'].iloc[0]}")
