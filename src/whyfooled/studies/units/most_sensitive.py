"""The most sensitive units of a layer compared with the rest: for some numbers of them, and as curves over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import final

import torch
from torch import Tensor

from whyfooled.studies.units.living_units import LivingUnits
from whyfooled.tensors.statistics import Permuted, holm, permutation_test

DETECTORS, IOU = "share of detectors", "mean of the best IoU"
"""The numbers that are compared."""
POINTS, FIRST = 60, 10
"""How many N a curve has, at most, and the first: of fewer units a mean says little. [ours]"""


@final
@dataclass(frozen=True)
class Top:
    """The most sensitive units compared with the rest, in one number.

    Parameters
    ----------
    number
        `DETECTORS` or `IOU`.
    size
        How many units.
    top, rest
        The mean among them, and among the rest.
    p_value
        How often chance takes the difference as far from 0: the numbers permuted among the units.
    corrected
        The same after Holm, for all sizes and both numbers of one ranking.
    """

    number: str
    size: int
    top: float
    rest: float
    p_value: float
    corrected: float


def compare_with_rest(units: LivingUnits, score: Tensor, seed: int) -> list[Top]:
    """Compare the most sensitive units with the rest: first in the share of detectors, then in the mean of the IoU."""
    sizes = units.sizes()
    if not sizes:
        return []
    chosen = _choose(score, sizes)
    numbers = {DETECTORS: units.detector.double(), IOU: units.iou}
    p_values = torch.cat([_permute(values, chosen, units.permutations, seed).p_value for values in numbers.values()])
    comparisons = product(numbers.items(), zip(sizes, chosen, strict=True))
    return [
        Top(number, size, float(values[top].mean()), float(values[~top].mean()), *p)
        for ((number, values), (size, top)), *p in zip(
            comparisons, p_values.tolist(), holm(p_values).tolist(), strict=True
        )
    ]


@final
@dataclass(frozen=True)
class TopCurves:
    """A number's mean among the N most sensitive units, over N, for a figure.

    Parameters
    ----------
    shares
        N as shares of the living units.
    lines
        The means, for each ranking.
    low, high
        The middle 95 % of what chance gives.
    whole
        The mean over all units.
    """

    shares: list[float]
    lines: Mapping[str, list[float]]
    low: list[float]
    high: list[float]
    whole: float


def compute_curves(units: LivingUnits, values: Tensor, seed: int) -> TopCurves:
    """Take the mean of a number among the N most sensitive units, for every ranking."""
    count, whole = units.count, float(values.mean())
    first = min(FIRST, max(1, count // 10))
    sizes = torch.linspace(first, count - 1, min(POINTS, max(0, count - first))).round().long()
    if not len(sizes):
        return TopCurves([], {}, [], [], whole)
    lines = {}
    for kind, score in units.plain_scores().items():
        ordered = values[score.argsort(descending=True, stable=True)]
        lines[kind] = (ordered.cumsum(0)[sizes - 1] / sizes).tolist()
    band = _permute(values, _choose(torch.arange(count, 0, -1).double(), sizes.tolist()), units.permutations, seed)
    # From the difference to the rest to the mean itself.
    part = (count - sizes) / count
    low, high = ((whole + end * part).tolist() for end in (band.low, band.high))
    return TopCurves((sizes / count).tolist(), lines, low, high, whole)


def _choose(score: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return (m,u) which units are the most sensitive ones, for each of m sizes."""
    place = torch.empty_like(score, dtype=torch.int64)
    place[score.argsort(descending=True, stable=True)] = torch.arange(len(score))
    return place < torch.tensor(sizes).unsqueeze(1)


def _permute(values: Tensor, chosen: Tensor, permutations: int, seed: int) -> Permuted:
    """Test the difference between the mean of the chosen units and of the rest, for each of (m,u) choices."""
    sizes = chosen.sum(1, keepdim=True)
    contrasts = chosen / sizes - (~chosen) / (chosen.shape[1] - sizes)
    return permutation_test(values, contrasts.double(), permutations=permutations, seed=seed)
