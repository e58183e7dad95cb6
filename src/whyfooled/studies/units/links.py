"""How the sensitivity of a layer's units correlates with what they detect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from whyfooled.studies.units.living_units import ATTACK, BEYOND, NOISE, LivingUnits
from whyfooled.studies.units.most_sensitive import Top, compare_with_rest
from whyfooled.tensors.measures import mean_ranks, pearson_correlation
from whyfooled.tensors.statistics import Interval, bootstrap, permutation_test

RESAMPLES = 1000
"""Samples of the images that are drawn for an interval: each ranks all units again. [ours]"""
HALVES = 50
"""How often the images are cut in halves. [ours]"""


@final
@dataclass(frozen=True)
class Link:
    """How one ranking of the units correlates with what they detect.

    Parameters
    ----------
    iou
        Spearman's correlation with the best IoU.
    p_value
        How often chance takes it as far from 0: the IoUs permuted among the units.
    above_chance
        With the best IoU less that by chance.
    given_std
        With the best IoU, what both have in common with the units' standard deviation removed.
    auroc
        How often a detector is ranked above a unit that is none.
    std, evenness
        With the unit's standard deviation; with how evenly it is on, which is its squared mean over its mean square: 1
        for one that gives the same everywhere, near 0 for one that is seldom on.
    repeatable
        How well the ranking agrees with that of as many other images: Spearman's correlation of rankings by halves of
        the images, brought to their whole number (Spearman & Brown 1910). Below 1 it pulls the others towards 0.
    over_noise
        `iou` minus that of the ranking by sensitivity to noise; None without it, and for that itself.
    tops
        The most sensitive units compared with the rest.
    """

    iou: Interval
    p_value: float
    above_chance: Interval
    given_std: Interval
    auroc: Interval
    std: Interval
    evenness: Interval
    repeatable: float
    over_noise: Interval | None
    tops: Sequence[Top]


def measure_links(units: LivingUnits, seed: int) -> tuple[dict[str, Link], Interval | None]:
    """Measure every ranking's link, and the correlation of sensitivity to the attack with that to noise.

    Intervals are over images: these are drawn again; the units, and what they detect, are not.
    """
    names = list(_numbers(units, torch.ones(1, units.images, dtype=torch.float64)))
    intervals = bootstrap(
        lambda weights: torch.stack([*_numbers(units, weights).values()], dim=1),
        units.images,
        seed=seed,
        resamples=RESAMPLES,
        width=8 * units.count,
    )
    numbers = {name: _cut(name[1], value) for name, value in zip(names, intervals, strict=True)}
    p_values, repeatable = _spearman_tests(units, seed), _repeatability(units, seed)
    links = {
        kind: Link(
            **{name: numbers[kind, name] for name in _NUMBERS},
            p_value=p_values[kind],
            repeatable=repeatable[kind],
            over_noise=numbers.get((kind, _OVER_NOISE)),
            tops=compare_with_rest(units, score, seed),
        )
        for kind, score in units.plain_scores().items()
    }
    return links, numbers.get((NOISE, _AGREEMENT))


_NUMBERS = ("iou", "above_chance", "given_std", "auroc", "std", "evenness")
_OVER_NOISE, _AGREEMENT = "over_noise", "agreement"


def _cut(name: str, value: Interval) -> Interval:
    """Cut the interval of a number, but for differences, off at what the number can be."""
    if name == _OVER_NOISE or value.count < 2:
        return value
    return replace(value, low=max(value.low, 0.0 if name == "auroc" else -1.0), high=min(value.high, 1.0))


def _numbers(units: LivingUnits, weights: Tensor) -> dict[tuple[str, str], Tensor]:
    """Return (r,) every number of every ranking, and what they have in common, where images count so often (r,n)."""
    std = units.std(weights)
    mean, square = weights @ units.moves.mean, weights @ units.moves.square
    deviation = mean_ranks(std)
    evenness = mean_ranks((mean.square() / (square * weights.sum(1, keepdim=True))).nan_to_num())
    iou, above = (mean_ranks(values.unsqueeze(0)) for values in (units.iou, units.iou - units.chance_iou))
    ranks = {kind: mean_ranks(score) for kind, score in units.scores(weights).items()}
    numbers: dict[tuple[str, str], Tensor] = {}
    for kind, ranking in ranks.items():
        with_iou, with_std = _correlate(ranking, iou), _correlate(ranking, deviation)
        with_above = _correlate(ranking, above)
        numbers |= {
            (kind, "iou"): with_iou,
            (kind, "above_chance"): with_above if units.chance_iou.isfinite().all() else with_above * torch.nan,
            (kind, "given_std"): _partial(with_iou, with_std, _correlate(deviation, iou)),
            (kind, "auroc"): _aurocs(ranking, units.detector),
            (kind, "std"): with_std,
            (kind, "evenness"): _correlate(ranking, evenness),
        }
    if NOISE in ranks:
        numbers[NOISE, _AGREEMENT] = _correlate(ranks[ATTACK], ranks[NOISE])
        for kind in (ATTACK, BEYOND):
            numbers[kind, _OVER_NOISE] = numbers[kind, "iou"] - numbers[NOISE, "iou"]
    return numbers


def _correlate(ranks: Tensor, others: Tensor) -> Tensor:
    """Return (r,) the correlation of (r,u) ranks with (r,u) or (1,u) others; NaN where one does not vary."""
    if ranks.shape[1] < 2:
        return torch.full((len(ranks),), torch.nan, dtype=torch.float64)
    return pearson_correlation(ranks, others.expand_as(ranks))


def _partial(direct: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the partial correlation of two numbers that correlate so with each other and each so with a third."""
    return (direct - first * second) / ((1 - first.square()) * (1 - second.square())).sqrt()


def _aurocs(ranks: Tensor, positive: Tensor) -> Tensor:
    """Return (r,) how often a positive unit ranks above a negative one, ties counting half (Mann-Whitney)."""
    count = int(positive.sum())
    pairs = count * (len(positive) - count)
    if not pairs:
        return torch.full((len(ranks),), torch.nan, dtype=torch.float64)
    return (ranks[:, positive].sum(1) - count * (count - 1) / 2) / pairs


def _repeatability(units: LivingUnits, seed: int) -> dict[str, float]:
    """Return each ranking's correlation with that of as many other images; NaN of fewer than four images."""
    if units.images < 4 or units.count < 2:
        return dict.fromkeys(units.plain_scores(), float("nan"))
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(HALVES, units.images, generator=generator).argsort(dim=1) < units.images // 2
    scores, others = (units.scores(half.double()) for half in (first, ~first))
    halves = {kind: _correlate(mean_ranks(score), mean_ranks(others[kind])).mean() for kind, score in scores.items()}
    return {kind: 2 * float(r) / (1 + float(r)) if r > 0 else 0.0 for kind, r in halves.items()}


def _spearman_tests(units: LivingUnits, seed: int) -> dict[str, float]:
    """Test each ranking's correlation with the IoU: ranks of the one are contrasts of the ranks of the other."""
    scores = units.plain_scores()
    if units.count < 2:
        return dict.fromkeys(scores, float("nan"))
    ranks = mean_ranks(torch.stack(list(scores.values())))
    contrasts = ranks - ranks.mean(1, keepdim=True)
    iou = mean_ranks(units.iou.unsqueeze(0))[0]
    tested = permutation_test(iou, contrasts, permutations=units.permutations, seed=seed)
    return dict(zip(scores, tested.p_value.tolist(), strict=True))
