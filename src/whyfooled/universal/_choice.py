"""Choosing among directions, on the images that they were fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.types import Image, PerImage
from whyfooled.universal._fitting import Fitting, Part
from whyfooled.universal._losses import log_odds_against
from whyfooled.universal.dissimilarity import distance
from whyfooled.universal.maps import Saliency, interpret


@runtime_checkable
class Effect(Protocol):
    """What perturbations do to each image, on the true network; it can be sent to another machine."""

    def __call__(self, classifier: Classifier, part: Part, deltas: Sequence[Image]) -> list[PerImage]:
        """Return (n,) numbers for each perturbation, the larger the better; NaN does not count."""
        ...


def choose_best(fit: Fitting, deltas: Sequence[Image], effect: Effect, name: str) -> Image:
    """Return the perturbation with the most effect on the fitting images, of these and their opposites.

    Its effect and that of its opposite go into the history under a name, and which of `deltas` it is.
    """
    tried = [sign * delta for delta in deltas for sign in (1, -1)]
    reached = fit.total(Trial(effect, tried), doing="choice")["reached"] / len(fit.classes)
    best = int(reached.argmax())
    other = {f"{name} of the other sign": float(reached[best ^ 1]), "chosen": best // 2}
    fit.history.append({name: float(reached[best]), **other})
    return tried[best]


@final
@dataclass(frozen=True, eq=False)
class Trial:
    """The effects of several perturbations, on a part."""

    effect: Effect
    deltas: Sequence[Image]

    def __call__(self, classifier: Classifier, part: Part) -> Mapping[str, Tensor]:
        """Add them up, (k,)."""
        effects = self.effect(classifier, part, [delta.to(part.images) for delta in self.deltas])
        return {"reached": torch.stack([one.double().nansum() for one in effects])}


@final
@dataclass(frozen=True, eq=False)
class MapsMoved:
    """How much the maps of a method change."""

    saliency: Saliency

    def __call__(self, classifier: Classifier, part: Part, deltas: Sequence[Image]) -> list[PerImage]:
        """Return (n,) dissimilarities for each perturbation, NaN where the clean map is empty."""
        clean = interpret(self.saliency, classifier, part.images, part.classes)
        changed = (interpret(self.saliency, classifier, part.images + delta, part.classes) for delta in deltas)
        return [distance(clean, one) for one in changed]


@final
@dataclass(frozen=True, eq=False)
class Doubt:
    """The probability of other classes: like a fooling rate, but it differs too where nobody is fooled."""

    def __call__(self, classifier: Classifier, part: Part, deltas: Sequence[Image]) -> list[PerImage]:
        """Return (n,) probabilities for each perturbation."""
        logits = (classifier.logits(part.images + delta).double() for delta in deltas)
        # In this form and precision, it is not rounded to 0 where the classifier is sure.
        return [log_odds_against(one, part.classes).sigmoid() for one in logits]
