"""UAP by DeepFool: small perturbations of one image after the other, added up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import at_least, bad_parameter
from whyfooled.registry import Card
from whyfooled.types import Image
from whyfooled.universal._deepfool import DeepFool
from whyfooled.universal._fitting import Fitting, Part
from whyfooled.universal._method import UniversalMethod


@final
@dataclass(frozen=True)
class DeepFoolUAP(UniversalMethod):
    """The first universal adversarial perturbation of predictions (Moosavi-Dezfooli et al. 2017, algorithm 1).

    It goes over the images. For each that is not fooled yet, the small perturbation by which `DeepFool` fools it at
    x + δ is added to δ, which is then brought back into the ball. It ends when δ fools enough of the fitting images, or
    after so many passes; δ is the one of the pass after which it fooled most of them [ours].

    As in the authors' code, an image that DeepFool does not fool within `steps` adds nothing.

    Parameters
    ----------
    enough
        Share of the fitting images, above 0 and at most 1, that δ has to fool; 1 − the paper's δ.
    passes
        How often it goes over the images at most.
    images_per_step
        How many images are looked at under the same δ; the paper's is 1. Their perturbations are averaged, so that a
        step is no longer than that of one image: with more images it is quicker, and each pass comes less far. [ours]
    candidates
        DeepFool's candidates: the classes of the largest logits, the image's own one counted; at least 2.
    overshoot
        By which share DeepFool goes further than the boundary.
    steps
        DeepFool's steps at most.
    """

    enough: float = 0.8
    passes: int = 10
    images_per_step: int = 1
    candidates: int = 10
    overshoot: float = 0.02
    steps: int = 10

    card: ClassVar[Card] = Card(
        name="uap-deepfool",
        title="UAP by DeepFool",
        summary="The smallest perturbations that fool one image after the other, added up.",
        source="Moosavi-Dezfooli, Fawzi, Fawzi, Frossard 2017, arXiv 1610.08401, algorithm 1",
        cost="1 forward, then for each of at most `passes`: 2 forwards and, for images not fooled yet, a forward and "
        "`candidates` backwards for each of DeepFool's steps, of which there are 2 or 3",
    )
    breaks_maps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.enough <= 1:
            raise bad_parameter("enough", "must be above 0 and at most 1", self.enough)
        at_least("passes", self.passes, 1)
        at_least("images_per_step", self.images_per_step, 1)
        at_least("candidates", self.candidates, 2)
        at_least("overshoot", self.overshoot, 0)
        at_least("steps", self.steps, 1)

    def find(self, fit: Fitting) -> Image:
        """Add up small perturbations, from 0."""
        fooling = DeepFool(self.ball, self.candidates, self.overshoot, self.steps)
        best, most = torch.zeros(fit.shape), -1.0
        delta = best
        batches = list(fit.minibatches(self.images_per_step, self.passes))
        for number, places in enumerate(batches):
            sums = fit.total(NudgeStep(delta, fooling), places, f"step {number + 1} of {len(batches)}")
            if sums["nudged"]:
                delta = self.kept_inside(delta + (sums["nudge"] / sums["nudged"]).float())
            if (number + 1) % (len(batches) // self.passes):
                continue
            share = float(fit.total(FooledStep(delta), doing="fooling rate")["fooled"]) / len(fit.classes)
            fit.history.append({"fooling_rate": share})
            if share > most:
                best, most = delta, share
            if share >= self.enough:
                break
        return best


@final
@dataclass(frozen=True, eq=False)
class NudgeStep:
    """DeepFool's perturbations at x + δ, on a part, of the images that it fools and that are not fooled already."""

    delta: Image
    fooling: DeepFool

    def __call__(self, classifier: Classifier, part: Part) -> Mapping[str, Tensor]:
        """Add them up, and count them."""
        nudges, fooled = self.fooling(classifier, part.images + self.delta.to(part.images), part.classes)
        added = nudges[fooled]
        return {"nudge": added.sum(0), "nudged": added.flatten(1).any(1).sum()}


@final
@dataclass(frozen=True, eq=False)
class FooledStep:
    """How many images of a part are fooled by δ."""

    delta: Image

    def __call__(self, classifier: Classifier, part: Part) -> Mapping[str, Tensor]:
        """Count them."""
        return {"fooled": (classifier.predict(part.images + self.delta.to(part.images)) != part.classes).sum()}
