"""How often the 95 % intervals of reports hold the truth: simulated proportions, areas under ROC curves and means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from whyfooled.tensors.statistics import Interval, auroc, bootstrap_means

SHARES = (0.02, 0.1, 0.5, 0.9)
COUNTS = (12, 20, 91)
AREAS = (0.76, 0.92, 0.98)
KINDS = ((12, 12), (20, 20), (15, 91), (91, 91))


def run(repeats: int) -> None:
    table = Table("95 % interval of", "truth", "images", "holds it", "mean width")
    for share in SHARES:
        for count in COUNTS:
            _add(table, "a proportion", share, f"{count}", _proportions(share, count, repeats))
    for area in AREAS:
        for positive, negative in KINDS:
            _add(table, "AUROC", area, f"{positive} and {negative}", _areas(area, positive, negative, repeats))
    for count in COUNTS:
        _add(table, "a mean (normal)", 0.0, f"{count}", _means(lambda draws: draws, count, repeats))
        _add(table, "a mean (log-normal)", math.exp(0.5), f"{count}", _means(torch.exp, count, repeats))
    Console().print(table)


def _add(table: Table, what: str, truth: float, images: str, intervals: Iterator[Interval]) -> None:
    drawn = list(intervals)
    held = sum(interval.low <= truth <= interval.high for interval in drawn) / len(drawn)
    width = sum(interval.high - interval.low for interval in drawn) / len(drawn)
    table.add_row(what, f"{truth:.3g}", images, f"{held:.3f}", f"{width:.3f}")


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _proportions(share: float, count: int, repeats: int) -> Iterator[Interval]:
    successes = torch.rand(count, repeats, generator=_generator(0)) < share
    yield from bootstrap_means(successes.double(), resamples=1)


def _areas(area: float, positive: int, negative: int, repeats: int) -> Iterator[Interval]:
    """Draw scores of two kinds from normal laws that lie so far apart."""
    kinds = torch.arange(positive + negative) < positive
    shift = math.sqrt(2) * NormalDist().inv_cdf(area)
    for seed in range(repeats):
        yield auroc(torch.randn(len(kinds), generator=_generator(seed), dtype=torch.float64) + shift * kinds, kinds)


def _means(law: Callable[[Tensor], Tensor], count: int, repeats: int) -> Iterator[Interval]:
    draws: Tensor = torch.randn(count, repeats, generator=_generator(1), dtype=torch.float64)
    yield from bootstrap_means(law(draws), resamples=2000)
