"""The sign of a direction, chosen on the images that it was fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.types import Image
from whyfooled.universal._fitting import Fitting, Part
from whyfooled.universal._maps import Saliency, interpret
from whyfooled.universal.dissimilarity import distance


def better_sign(fit: Fitting, delta: Image) -> Image:
    """Return δ or −δ, whichever moves the maps of the fitting images more, on the true network."""
    sums = fit.total(BothSigns(fit.saliency, delta), doing="sign")
    plus, minus = (float(sums[sign]) / len(fit.classes) for sign in ("plus", "minus"))
    fit.history.append({"dissimilarity": max(plus, minus), "dissimilarity of the other sign": min(plus, minus)})
    return delta if plus >= minus else -delta


@final
@dataclass(frozen=True, eq=False)
class BothSigns:
    """The dissimilarities under δ and under −δ, on a part."""

    saliency: Saliency
    delta: Image

    def __call__(self, classifier: Classifier, part: Part) -> Mapping[str, Tensor]:
        """Add them up."""
        clean, plus, minus = (
            interpret(self.saliency, classifier, part.images + sign * self.delta.to(part.images), part.classes)
            for sign in (0, 1, -1)
        )
        return {name: distance(clean, moved).nansum() for name, moved in (("plus", plus), ("minus", minus))}
