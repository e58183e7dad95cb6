"""A layer's living units under one attack, as a study's rows have them: what moves them, and what they detect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whyfooled.studies.parts.attacked import FOOLED
from whyfooled.studies.parts.over_images import group_rows
from whyfooled.studies.table import Table
from whyfooled.units.sensitivity import PairMoves

ATTACK, NOISE, BEYOND = "attack", "noise", "beyond noise"
"""What units are ranked by: sensitivity to the attack, to noise as large, and the first over the second."""
MOVES = ("distance", "mean", "square")
FACTS = ("iou", "chance_iou", "detector", "chance_detector", "dead")
GRID = ("shares", "counts")


def pack(values: Tensor | Sequence[float]) -> bytes:
    """Write numbers as the bytes of float64, for a cell of a table."""
    return torch.as_tensor(values, dtype=torch.float64).contiguous().cpu().numpy().tobytes()


def unpack(cells: Sequence[bytes]) -> Tensor:
    """Read (n,u) numbers from n cells."""
    return torch.from_numpy(np.stack([np.frombuffer(cell, dtype=np.float64) for cell in cells]))


@final
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
        How far the attack moves them, and noise as large; None without it.
    iou, chance_iou
        (u,) Their best IoU, and the mean of it over permutations of the annotations among the images.
    detector, chance_detector
        (u,) Whether it is above the cutoff; in which share of the permutations it is.
    shares, counts
        How many of the most sensitive units are compared with the rest: shares of the living units, and numbers.
    permutations
        How often values are permuted among the units.
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
        mean, square = weights @ self.moves.mean / total, weights @ self.moves.square / total
        return (square - mean.square()).clamp(min=0).sqrt()

    def scores(self, weights: Tensor) -> dict[str, Tensor]:
        """Return (r,u) what units are ranked by, where each image counts so often (r,n)."""
        total, std = weights.sum(1, keepdim=True), self.std(weights)
        attack = weights @ self.moves.distance / total
        scores = {ATTACK: attack / std}
        if self.noise is not None:
            noise = weights @ self.noise.distance / total
            scores |= {NOISE: noise / std, BEYOND: attack / noise}
        # A few images may leave a unit silent; what moves then counts as moved most.
        return {kind: score.nan_to_num(nan=0.0, posinf=torch.inf) for kind, score in scores.items()}

    def plain_scores(self) -> dict[str, Tensor]:
        """Return (u,) what units are ranked by, every image once."""
        weights = torch.ones(1, self.images, dtype=torch.float64)
        return {kind: score[0] for kind, score in self.scores(weights).items()}

    def sizes(self) -> list[int]:
        """Return how many units are compared with the rest, each number once; some must be left."""
        asked = {max(1, round(share * self.count)) for share in self.shares} | set(self.counts)
        return sorted(size for size in asked if size < self.count)


def read_units(table: Table) -> Iterator[LivingUnits]:
    """Read a study's rows, one layer under one attack at a time."""
    names = table.read(["layer", "attack"], [("outcome", "==", FOOLED)])
    for (layer, attack), _ in group_rows(names, "layer", "attack"):
        yield _living_units(layer, attack, table.read(where=[("layer", "==", layer), ("attack", "==", attack)]))


def _living_units(layer: str, attack: str, rows: pd.DataFrame) -> LivingUnits:
    first = rows.iloc[0]
    facts = {name: unpack([first[name]])[0] for name in (*FACTS, *GRID)}
    moves = {
        kind: PairMoves(*(unpack(part[name].tolist()) for name in MOVES))
        for (kind,), part in group_rows(rows, "perturbation")
    }
    alive = (facts["dead"] == 0) & (moves[ATTACK].std() > 0)
    left = {kind: PairMoves(*(getattr(pairs, name)[:, alive] for name in MOVES)) for kind, pairs in moves.items()}
    return LivingUnits(
        layer=layer,
        attack=attack,
        whole=len(alive),
        moves=left[ATTACK],
        noise=left.get(NOISE),
        **{name: facts[name][alive] for name in ("iou", "chance_iou", "chance_detector")},
        detector=facts["detector"][alive] > 0,
        shares=tuple(facts["shares"].tolist()),
        counts=tuple(map(int, facts["counts"].tolist())),
        permutations=int(first["permutations"]),
    )
