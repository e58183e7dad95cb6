"""What becomes of the detectors of each concept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whyfooled.units.dissection.dissection import Dissection
from whyfooled.units.dissection.results import DissectedLayer


@final
@dataclass(frozen=True)
class ConceptChange:
    """What becomes of the detectors of one concept in one layer.

    Parameters
    ----------
    concept, category
        The concept's name, and its category's.
    units
        How many units of the layer detect it.
    mean_change
        Mean over them of `LayerChanges.mean_change`; infinite if one's is.
    held
        How much they hold the true class up in the clean image, in logits: their sum of `LayerChanges.held`.
    true_effect, wrong_effect
        What their change does to the logit of the true class, and to the wrong one's: sums of `LayerChanges.effect`.
    """

    concept: str
    category: str
    units: int
    mean_change: float
    held: float
    true_effect: float
    wrong_effect: float

    @property
    def falls(self) -> bool:
        """Whether it held the true class up in the clean image, and its change lowers that class's logit [ours]."""
        return self.held > 0 and self.true_effect < 0

    @property
    def rises(self) -> bool:
        """Whether its change raises the wrong class's logit [ours]."""
        return self.wrong_effect > 0


def find_concept_changes(
    dissection: Dissection, dissected: DissectedLayer, mean_change: Tensor, held: Tensor, effect: Tensor
) -> Iterator[ConceptChange]:
    """Add up the detectors of each concept."""
    best = torch.where(dissected.detectors(dissection.cutoff), dissected.best, -1)
    for index in sorted(set(best.tolist()) - {-1}):
        detectors = best == index
        yield ConceptChange(
            concept=dissection.concepts[index],
            category=dissection.categories[dissection.category_of[index]],
            units=int(detectors.sum()),
            mean_change=float(mean_change[detectors].mean()),
            held=float(held[0, detectors].sum()),
            true_effect=float(effect[0, detectors].sum()),
            wrong_effect=float(effect[1, detectors].sum()),
        )
