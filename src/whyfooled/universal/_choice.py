"""Choosing among directions, on the images that they were fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.types import Image, Images
from whyfooled.universal._fitting import Fitting, Part
from whyfooled.universal._maps import Saliency, interpret
from whyfooled.universal.dissimilarity import distance


def best_of(fit: Fitting, deltas: Sequence[Image]) -> Image:
    """Return the perturbation that moves the maps of the fitting images most, of these and their opposites.

    On the true network.
    """
    tried = torch.stack([sign * delta for delta in deltas for sign in (1, -1)])
    reached = fit.total(Trial(fit.saliency, tried), doing="choice")["dissimilarity"] / len(fit.classes)
    best = int(reached.argmax())
    fit.history.append(
        {
            "dissimilarity": float(reached[best]),
            "dissimilarity of the other sign": float(reached[best ^ 1]),
            "chosen": best // 2,
        }
    )
    return tried[best]


@final
@dataclass(frozen=True, eq=False)
class Trial:
    """The dissimilarities under each of several perturbations, on a part."""

    saliency: Saliency
    deltas: Images

    def __call__(self, classifier: Classifier, part: Part) -> Mapping[str, Tensor]:
        """Add them up, (k,)."""
        clean = interpret(self.saliency, classifier, part.images, part.classes)
        moved = (
            interpret(self.saliency, classifier, part.images + delta.to(part.images), part.classes)
            for delta in self.deltas
        )
        return {"dissimilarity": torch.stack([distance(clean, maps).nansum() for maps in moved])}
