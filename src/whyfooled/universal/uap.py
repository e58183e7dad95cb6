"""UAP: a universal perturbation of the prediction, by stochastic ascent on the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import positive
from whyfooled.registry import Card
from whyfooled.types import Image
from whyfooled.universal._ascent import Pace, ascend
from whyfooled.universal._fitting import Fitting, Part
from whyfooled.universal._losses import log_odds_against, loss_slopes
from whyfooled.universal._method import UniversalMethod


@final
@dataclass(frozen=True)
class UAP(UniversalMethod):
    """Universal adversarial perturbation by stochastic projected gradient ascent (Shafahi et al. 2020, sec. 4).

    It makes the mean over the images of ``min(loss(x + δ), clip)`` large, in the ball, on the true network. The clip is
    the paper's: without it, few images whose loss is large already rule the mean. The loss is the logarithm of the odds
    against the class in place of the cross-entropy [ours]. They differ by less than log(2) once an image fools the
    classifier, but the slope of the cross-entropy is 0 where the classifier is sure, and so at most images at first.

    Steps have a fixed length along the mean of past gradients (momentum), and shrink linearly to 0 [ours]; the paper's
    are Adam's, or of the gradient's signs.

    Parameters
    ----------
    clip
        Loss from which on an image counts as fooled well enough, and no longer pulls; None for no bound.
    passes
        How often each image is used. [ours]
    images_per_step
        Images drawn for a step. [ours]
    step_size
        Length of the first step, as a share of `epsilon`. [ours]
    momentum
        How much of the past gradients is kept, from 0 to below 1. [ours]
    """

    clip: float | None = 9.0
    passes: int = 10
    images_per_step: int = 20
    step_size: float = 0.3
    momentum: float = 0.9

    card: ClassVar[Card] = Card(
        name="uap",
        title="UAP",
        summary="Gradient ascent on the loss of the predictions, over all images.",
        source="Shafahi, Najibi, Xu, Dickerson, Davis, Goldstein 2020, arXiv 1811.11304, sec. 4",
        cost="1 forward, then `passes` forwards and backwards",
    )
    breaks_maps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip is not None:
            positive("clip", self.clip)
        self._make_pace()

    def find(self, fit: Fitting) -> Image:
        """Ascend from a random direction."""
        return ascend(self, fit, self._make_pace(), lambda at: LossStep(at, self.clip))

    def _make_pace(self) -> Pace:
        return Pace(self.passes, self.images_per_step, self.step_size, self.momentum)


@final
@dataclass(frozen=True, eq=False)
class LossStep:
    """The slope of the clipped loss at x + δ, on a part."""

    delta: Image
    clip: float | None

    def __call__(self, classifier: Classifier, part: Part) -> Mapping[str, Tensor]:
        """Add up the slopes, the losses and how many images fool the classifier."""
        slopes, losses = loss_slopes(
            classifier, part.images + self.delta.to(part.images), part.classes, log_odds_against
        )
        pulls = losses < (float("inf") if self.clip is None else self.clip)
        slope = (slopes * pulls.view(-1, 1, 1, 1)).sum(0)
        return {"slope": slope, "loss": losses.sum(), "fooled": (losses > 0).sum()}
