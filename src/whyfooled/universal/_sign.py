"""The sign of a direction, chosen on the images that it was fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.types import Image, PerImage
from whyfooled.universal._fitting import Fitting, Part
from whyfooled.universal._losses import log_odds_against
from whyfooled.universal._maps import Saliency, interpret
from whyfooled.universal.dissimilarity import distance


@runtime_checkable
class Effect(Protocol):
    """What perturbations do to each image, on the true network; it can be sent to another machine."""

    def __call__(self, classifier: Classifier, part: Part, deltas: Sequence[Image]) -> list[PerImage]:
        """Return (n,) numbers for each perturbation, the larger the better; NaN does not count."""
        ...


def better_sign(fit: Fitting, delta: Image, effect: Effect, name: str) -> Image:
    """Return δ or −δ, whichever has more effect on the fitting images; both go into the history under a name."""
    sums = fit.total(BothSigns(effect, delta), doing="sign")
    plus, minus = (float(sums[sign]) / len(fit.classes) for sign in ("plus", "minus"))
    fit.history.append({name: max(plus, minus), f"{name} of the other sign": min(plus, minus)})
    return delta if plus >= minus else -delta


@final
@dataclass(frozen=True, eq=False)
class BothSigns:
    """The effects of δ and of −δ, on a part."""

    effect: Effect
    delta: Image

    def __call__(self, classifier: Classifier, part: Part) -> Mapping[str, Tensor]:
        """Add them up."""
        delta = self.delta.to(part.images)
        plus, minus = self.effect(classifier, part, (delta, -delta))
        return {"plus": plus.nansum(), "minus": minus.nansum()}


@final
@dataclass(frozen=True, eq=False)
class MapsMoved:
    """How far the maps of a method move."""

    saliency: Saliency

    def __call__(self, classifier: Classifier, part: Part, deltas: Sequence[Image]) -> list[PerImage]:
        """Return (n,) dissimilarities for each perturbation, NaN where the clean map is empty."""
        clean = interpret(self.saliency, classifier, part.images, part.classes)
        moved = (interpret(self.saliency, classifier, part.images + delta, part.classes) for delta in deltas)
        return [distance(clean, one) for one in moved]


@final
@dataclass(frozen=True, eq=False)
class Doubt:
    """The probability of other classes: like a fooling rate, but it differs too where nobody is fooled."""

    def __call__(self, classifier: Classifier, part: Part, deltas: Sequence[Image]) -> list[PerImage]:
        """Return (n,) probabilities for each perturbation."""
        logits = (classifier.logits(part.images + delta).double() for delta in deltas)
        # In this form and precision, it is not rounded to 0 where the classifier is sure.
        return [log_odds_against(one, part.classes).sigmoid() for one in logits]
