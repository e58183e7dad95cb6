"""How the sensitivity of a layer's units goes with what they detect, from a study's rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whyfooled.studies.parts.attacked import FOOLED
from whyfooled.studies.table import Table
from whyfooled.tensors.measures import mean_ranks, pearson_correlation
from whyfooled.tensors.statistics import Interval, Permuted, bootstrap, holm, permutation_test
from whyfooled.units.sensitivity import PairMoves

ATTACK, NOISE, BEYOND = "attack", "noise", "beyond noise"
"""What units are ranked by: sensitivity to the attack, to noise as large, and the first over the second."""
MOVES = ("distance", "mean", "square")
FACTS = ("iou", "chance_iou", "detector", "chance_detector", "dead")
GRID = ("shares", "counts")
RESAMPLES = 1000
"""Samples of the images that are drawn for an interval: each ranks all units again. [ours]"""


def packed(values: Tensor | Sequence[float]) -> bytes:
    """Write numbers as the bytes of float64, for a cell of a table."""
    return torch.as_tensor(values, dtype=torch.float64).contiguous().cpu().numpy().tobytes()


def unpacked(cells: Sequence[bytes]) -> Tensor:
    """Read (n,u) numbers from n cells."""
    return torch.from_numpy(np.stack([np.frombuffer(cell, dtype=np.float64) for cell in cells]))


@dataclass(frozen=True, eq=False)
class LivingUnits:
    """The u living units of one layer under one attack, which fools the classifier on n images.

    Parameters
    ----------
    layer, attack
        Their names.
    whole
        How many units the layer has; those that give the same everywhere, when they were dissected or on these images,
        are not among the u.
    moves, noise
        What the attack does to them, and noise as large; None without it.
    iou, chance_iou
        (u,) Their best IoU, and the mean of it over ways to deal the annotations to other images.
    detector, chance_detector
        (u,) Whether it is above the cutoff; in which share of these ways it is.
    shares, counts
        How many of the most sensitive units are held against the rest: shares of the living units, and numbers.
    permutations
        How often values are dealt to other units.
    """

    layer: str
    attack: str
    whole: int
    moves: PairMoves
    noise: PairMoves | None
    iou: Tensor
    chance_iou: Tensor
    detector: Tensor
    chance_detector: Tensor
    shares: tuple[float, ...]
    counts: tuple[int, ...]
    permutations: int

    @property
    def images(self) -> int:
        """Of how many images."""
        return len(self.moves.distance)

    @property
    def count(self) -> int:
        """How many living units there are."""
        return len(self.iou)

    def std(self, weights: Tensor) -> Tensor:
        """Return (r,u) each unit's standard deviation on the clean images, each of which counts so often (r,n)."""
        total = weights.sum(1, keepdim=True)
        mean, square = (weights @ one / total for one in (self.moves.mean, self.moves.square))
        return (square - mean.square()).clamp(min=0).sqrt()

    def scores(self, weights: Tensor) -> dict[str, Tensor]:
        """Return (r,u) what units are ranked by, where each image counts so often (r,n)."""
        total, std = weights.sum(1, keepdim=True), self.std(weights)
        attack = weights @ self.moves.distance / total
        found = {ATTACK: attack / std}
        if self.noise is not None:
            noise = weights @ self.noise.distance / total
            found |= {NOISE: noise / std, BEYOND: attack / noise}
        # A few images may leave a unit silent; what moves then counts as moved most.
        return {name: score.nan_to_num(nan=0.0, posinf=torch.inf) for name, score in found.items()}

    def plain_scores(self) -> dict[str, Tensor]:
        """Return (u,) what units are ranked by, every image once."""
        weights = torch.ones(1, self.images, dtype=torch.float64)
        return {name: score[0] for name, score in self.scores(weights).items()}

    def sizes(self) -> list[int]:
        """Return how many units are held against the rest, each number once; some must be left."""
        asked = {max(1, round(share * self.count)) for share in self.shares} | set(self.counts)
        return sorted(size for size in asked if size < self.count)


def read_units(table: Table) -> Iterator[LivingUnits]:
    """Read a study's rows, one layer under one attack at a time."""
    names = table.read(["layer", "attack"], [("outcome", "==", FOOLED)]).drop_duplicates()
    for layer, attack in names.sort_values("layer", kind="stable", key=_first_seen).itertuples(index=False):
        rows = table.read(where=[("layer", "==", layer), ("attack", "==", attack)])
        yield _living(str(layer), str(attack), rows)


def _first_seen(column: pd.Series) -> pd.Series:
    return pd.Series(pd.factorize(column.astype(str))[0], index=column.index)


def _living(layer: str, attack: str, rows: pd.DataFrame) -> LivingUnits:
    first = rows.iloc[0]
    facts = {name: unpacked([first[name]])[0] for name in FACTS}
    moves = {kind: _moves(own) for kind, own in rows.groupby("perturbation", observed=True)}
    alive = (facts["dead"] == 0) & (moves[ATTACK].std() > 0)
    left = {kind: PairMoves(*(getattr(one, name)[:, alive] for name in MOVES)) for kind, one in moves.items()}
    return LivingUnits(
        layer=layer,
        attack=attack,
        whole=len(alive),
        moves=left[ATTACK],
        noise=left.get(NOISE),
        iou=facts["iou"][alive],
        chance_iou=facts["chance_iou"][alive],
        detector=facts["detector"][alive] > 0,
        chance_detector=facts["chance_detector"][alive],
        shares=tuple(unpacked([first["shares"]])[0].tolist()),
        counts=tuple(map(int, unpacked([first["counts"]])[0].tolist())),
        permutations=int(first["permutations"]),
    )


def _moves(rows: pd.DataFrame) -> PairMoves:
    return PairMoves(*(unpacked(rows[name].tolist()) for name in MOVES))


@dataclass(frozen=True)
class Link:
    """How one ranking of the units goes with what they detect.

    Parameters
    ----------
    iou
        Spearman's correlation with the best IoU.
    p_value
        How often chance takes it as far from 0: the IoUs dealt to other units.
    above_chance
        With the best IoU less that by chance.
    given_std
        With the best IoU, what both have in common with the units' standard deviation taken out.
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


def links(units: LivingUnits, seed: int) -> tuple[dict[str, Link], Interval | None]:
    """Measure every ranking's link, and how sensitivity to the attack goes with that to noise; intervals over images.

    The images are drawn again; the units, and what they detect, are not.
    """
    kinds = list(units.plain_scores())
    found = bootstrap(
        lambda weights: _numbers(units, weights), units.images, seed=seed, resamples=RESAMPLES, width=8 * units.count
    )
    one = len(_NAMES)
    rankings = {kind: found[place * one : (place + 1) * one] for place, kind in enumerate(kinds)}
    rest = found[len(kinds) * one :]
    over = dict(zip((ATTACK, BEYOND), rest[1:], strict=False))
    tested, repeatable = _spearman_tests(units, seed), _repeatability(units, seed)
    return (
        {
            kind: Link(
                **{
                    name: _cut(value, 0.0 if name == "auroc" else -1.0) for name, value in zip(_NAMES, own, strict=True)
                },
                p_value=tested[kind],
                repeatable=repeatable[kind],
                over_noise=over.get(kind),
            )
            for kind, own in rankings.items()
        },
        _cut(rest[0], -1.0) if rest else None,
    )


_NAMES = {"iou": -1.0, "above_chance": -1.0, "given_std": -1.0, "auroc": 0.0, "std": -1.0, "evenness": -1.0}
"""Numbers of a ranking, and the lowest that each can be."""


def _cut(value: Interval, lowest: float) -> Interval:
    """Cut an interval off at what the number can be: 1, and the lowest."""
    return replace(value, low=max(value.low, lowest), high=min(value.high, 1.0)) if value.count > 1 else value


HALVES = 50
"""How often the images are cut in halves. [ours]"""


def _repeatability(units: LivingUnits, seed: int) -> dict[str, float]:
    """Return each ranking's correlation with that of as many other images; NaN of fewer than four images."""
    if units.images < 4 or units.count < 2:
        return dict.fromkeys(units.plain_scores(), float("nan"))
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(HALVES, units.images, generator=generator).argsort(dim=1) < units.images // 2
    halves = [
        {kind: mean_ranks(score) for kind, score in units.scores(half.double()).items()} for half in (first, ~first)
    ]
    found = {kind: float(_correlation(ranks, halves[1][kind]).mean()) for kind, ranks in halves[0].items()}
    return {kind: 2 * r / (1 + r) if r > 0 else 0.0 for kind, r in found.items()}


def _numbers(units: LivingUnits, weights: Tensor) -> Tensor:
    """Return (r,m) every number of every ranking, and what attack and noise have in common."""
    std = units.std(weights)
    mean, square = weights @ units.moves.mean, weights @ units.moves.square
    deviation = mean_ranks(std)
    evenness = mean_ranks((mean.square() / (square * weights.sum(1, keepdim=True))).nan_to_num())
    iou, above = (mean_ranks(one.unsqueeze(0)) for one in (units.iou, units.iou - units.chance_iou))
    ranks = {kind: mean_ranks(score) for kind, score in units.scores(weights).items()}
    numbers: list[Tensor] = []
    for own in ranks.values():
        with_std = _correlation(own, deviation)
        direct = _correlation(own, iou)
        numbers += [
            direct,
            _correlation(own, above) if units.chance_iou.isfinite().all() else torch.full_like(direct, torch.nan),
            _partial(direct, with_std, _correlation(deviation, iou)),
            _aurocs(own, units.detector),
            with_std,
            _correlation(own, evenness),
        ]
    if NOISE in ranks:
        numbers.append(_correlation(ranks[ATTACK], ranks[NOISE]))
        noise = _correlation(ranks[NOISE], iou)
        numbers += [_correlation(ranks[kind], iou) - noise for kind in (ATTACK, BEYOND)]
    return torch.stack(numbers, dim=1)


def _correlation(ranks: Tensor, others: Tensor) -> Tensor:
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


@dataclass(frozen=True)
class Top:
    """The most sensitive units held against the rest, in one number.

    Parameters
    ----------
    size
        How many units.
    top, rest
        The mean among them, and among the rest.
    p_value
        How often chance takes the difference as far from 0: the numbers dealt to other units.
    corrected
        The same after Holm, for all sizes and both numbers of one ranking.
    """

    size: int
    top: float
    rest: float
    p_value: float
    corrected: float


def tops(units: LivingUnits, score: Tensor, seed: int) -> tuple[list[Top], list[Top]]:
    """Hold the most sensitive units against the rest: in the share of detectors, and in the mean IoU."""
    sizes = units.sizes()
    if not sizes:
        return [], []
    chosen = most_sensitive(score, sizes)
    numbers = (units.detector.double(), units.iou)
    p_values = [dealt_out(one, chosen, units.permutations, seed).p_value for one in numbers]
    corrected = holm(torch.cat(p_values)).view(2, -1)
    return (
        _compared(sizes, chosen, numbers[0], p_values[0], corrected[0]),
        _compared(sizes, chosen, numbers[1], p_values[1], corrected[1]),
    )


def _compared(sizes: Sequence[int], chosen: Tensor, values: Tensor, p_values: Tensor, corrected: Tensor) -> list[Top]:
    whole = zip(sizes, chosen, p_values.tolist(), corrected.tolist(), strict=True)
    return [Top(size, float(values[own].mean()), float(values[~own].mean()), *ps) for size, own, *ps in whole]


def most_sensitive(score: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return (m,u) which units are the most sensitive ones, for each of m sizes."""
    place = torch.empty_like(score, dtype=torch.int64)
    place[score.argsort(descending=True, stable=True)] = torch.arange(len(score))
    return place < torch.tensor(sizes).unsqueeze(1)


def dealt_out(values: Tensor, chosen: Tensor, permutations: int, seed: int) -> Permuted:
    """Test the difference between the mean of the chosen units and of the rest, for each of (m,u) choices."""
    sizes = chosen.sum(1, keepdim=True)
    contrasts = chosen / sizes - (~chosen) / (chosen.shape[1] - sizes)
    return permutation_test(values, contrasts.double(), permutations=permutations, seed=seed)
