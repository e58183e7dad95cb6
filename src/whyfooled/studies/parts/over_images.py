"""From a study's rows to numbers over images, which is what intervals are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar, final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whyfooled.drawing.summary import Cell, SummaryTable
from whyfooled.errors import ImageError
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST, Interval, RandomDraws, Side, bootstrap_means, flip_test, holm

Key = TypeVar("Key")
LEVEL = 0.05
"""In how many families of comparisons, at most, chance alone is taken for a difference."""


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
    draws
        What is subtracted in them, if that is the mean of random draws: differences are to what one more would give.
    """

    entries: tuple[str, ...]
    values: Tensor
    seed: int
    differences: bool = False
    draws: RandomDraws | None = None

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
        if self.draws is not None:
            intervals = [interval.widen(self.draws.reach) for interval in intervals]
        return dict(zip(self.entries, intervals, strict=True))

    @property
    def complete(self) -> int:
        """How many images have a number under every entry."""
        return int((~self.values.isnan().any(1)).sum())

    def column(self, entry: str) -> Tensor:
        """Return (n,) the numbers of an entry."""
        return self.values[:, self.entries.index(entry)]

    def less(self, entry: str) -> Spread:
        """Take each other entry minus a certain one, image by image."""
        return self.gaps({name: (name, entry) for name in self.entries if name != entry})

    def minus(self, entry: str) -> dict[str, Interval]:
        """Return the mean over images of each other entry minus a certain one."""
        return self.less(entry).means

    def gaps(self, pairs: Mapping[str, tuple[str, str]]) -> Spread:
        """Take the first entry of each pair minus its second, image by image, under the pair's name."""
        gaps = [self.column(first) - self.column(second) for first, second in pairs.values()]
        values = torch.stack(gaps, dim=1) if gaps else self.values[:, :0]
        return Spread(tuple(pairs), values, self.seed, differences=True)

    def ratio(self, entry: str) -> dict[str, Interval]:
        """Return the geometric mean over images of each entry's positive number over that of a certain one."""
        log = self.column(entry).log()
        logs = torch.stack([self.column(name).log() - log for name in self.entries]).T
        return {name: interval.exp() for name, interval in replace(self, values=logs).means.items()}

    @cached_property
    def p_values(self) -> Tensor:
        """(m,) How often chance takes each mean as far from 0; NaN of fewer images than anything is said about."""
        few = torch.tensor([mean.count < FEWEST for mean in self.means.values()], dtype=torch.bool)
        p_values = flip_test(self.values, seed=self.seed)
        if self.draws is not None:
            others = [self.draws.p_value(mean.mean) for mean in self.means.values()]
            p_values = torch.maximum(p_values, torch.tensor(others, dtype=torch.float64))
        return p_values.masked_fill(few, torch.nan)

    def best(self, leaving_out: Sequence[str] = ()) -> str:
        """Return the entry with the largest mean."""
        means = {entry: mean for entry, mean in self.means.items() if entry not in leaving_out}
        return max(means, key=lambda entry: means[entry].mean if means[entry].count else float("-inf"))


def judge(family: Mapping[Key, Spread]) -> dict[Key, dict[str, Side]]:
    """Say on which side of 0 the mean of each difference lies, if that is sure of all differences together.

    In 5 % of families at most chance alone puts any of them on a side: p-values are corrected for how many there are,
    after Holm. Those of fewer images than anything is said about are left out.
    """
    if not family:
        return {}
    parts = torch.split(
        holm(torch.cat([spread.p_values for spread in family.values()])),
        [len(spread.entries) for spread in family.values()],
    )
    return {
        key: {
            entry: ("above" if mean.mean > 0 else "below") if p_value < LEVEL else "open"
            for (entry, mean), p_value in zip(spread.means.items(), corrected.tolist(), strict=True)
            if p_value == p_value
        }
        for (key, spread), corrected in zip(family.items(), parts, strict=True)
    }


def say_family(sides: Mapping[Key, Mapping[str, Side]]) -> str:
    """Say how differences were judged."""
    count = sum(len(of_key) for of_key in sides.values())
    corrected = f", corrected (Holm) for {count} comparisons" if count > 1 else ""
    return f"tests of the paired differences{corrected}"


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
