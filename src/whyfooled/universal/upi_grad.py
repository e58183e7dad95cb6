"""UPI-Grad: gradient ascent on the dissimilarity of maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import at_least
from whyfooled.registry import Card
from whyfooled.saliency.differentiable import DifferentiableMethod
from whyfooled.saliency.interpretations import check_beta, smoothed
from whyfooled.tensors.randomness import normal
from whyfooled.types import Image
from whyfooled.universal._ascent import Pace, ascend
from whyfooled.universal._fitting import Fitting, Part, make_flat_error
from whyfooled.universal._losses import loss_slopes
from whyfooled.universal._method import UniversalMethod
from whyfooled.universal.maps import interpret, slopes


@final
@dataclass(frozen=True)
class UPIGrad(UniversalMethod):
    """Universal perturbation of interpretations by stochastic projected gradient ascent (Ehsani Oskouie & Farnia 2022).

    It makes ``mean over x of D(x, δ + Z) − μ · loss(x + δ)`` large, in the ball: `dissimilarity` of the clean map and
    of the perturbed one with Gaussian noise Z, and, with a penalty μ, the cross-entropy of the predictions, which then
    stay. The penalty is [ours]. Steps have a fixed length along the mean of past gradients (momentum), and shrink
    linearly to 0 [ours].

    The slopes of D are taken with smooth activations, because those of a network of ReLUs are 0 [ours]; the penalty, on
    the true network.

    Parameters
    ----------
    penalty
        μ, at least 0: how much the predictions are to stay. 0 leaves them to themselves.
    passes
        How often each image is used. [ours]
    images_per_step
        Images drawn for a step. [ours]
    step_size
        Length of the first step, as a share of `epsilon`. [ours]
    momentum
        How much of the past gradients is kept, from 0 to below 1. [ours]
    noise
        Length of Z, as a share of that of the largest perturbations in the ball; its σ is that over the square root of
        the number of values. [ours]
    beta
        Sharpness of the smooth activations, see `whyfooled.saliency.smooth_activations`; None for the true ones.
    """

    penalty: float = 0.0
    passes: int = 4
    images_per_step: int = 20
    step_size: float = 0.3
    momentum: float = 0.9
    noise: float = 0.5
    beta: float | None = 10.0

    card: ClassVar[Card] = Card(
        name="grad",
        title="UPI-Grad",
        summary="Gradient ascent on how much the maps change, over all images.",
        source="Ehsani Oskouie & Farnia 2022, arXiv 2212.03095, sec. 4, algorithm 1",
        cost="1 forward, then for each of `passes`: 2 maps, one of them differentiated; with `penalty` a gradient more",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("penalty", self.penalty, 0)
        at_least("noise", self.noise, 0)
        self._make_pace()
        check_beta(self.beta)

    def find(self, fit: Fitting) -> Image:
        """Ascend from a random direction."""
        sigma = self.noise_size(self.noise, fit.shape)
        return ascend(
            self,
            fit,
            self._make_pace(),
            lambda at: AscentStep(fit.saliency, at, sigma, self.penalty, self.beta),
            lambda: make_flat_error(self.beta),
        )

    def _make_pace(self) -> Pace:
        return Pace(self.passes, self.images_per_step, self.step_size, self.momentum)


@final
@dataclass(frozen=True, eq=False)
class AscentStep:
    """The slopes of the objective's two terms on a part: of ``D(x, δ + Z)``, and of ``μ · loss(x + δ)``."""

    saliency: DifferentiableMethod
    delta: Image
    sigma: float
    penalty: float
    beta: float | None

    def __call__(self, classifier: Classifier, part: Part) -> Mapping[str, Tensor]:
        """Add up the slopes, the dissimilarities and, with a penalty, the losses."""
        perturbed = part.images + self.delta.to(part.images)
        with smoothed(self.beta):
            clean = interpret(self.saliency, classifier, part.images, part.classes)
        noisy = perturbed + self.sigma * normal(perturbed, part.generators())
        gradients, apart = slopes(self.saliency, classifier, noisy, part.classes, clean, self.beta)
        none = apart.new_zeros(())
        sums = {"slope": gradients.sum(0), "dissimilarity": apart.nan_to_num(0).sum(), "pull": none, "loss": none}
        if self.penalty:
            pull, losses = loss_slopes(classifier, perturbed, part.classes)
            sums["pull"], sums["loss"] = self.penalty * pull.sum(0), losses.sum()
        return sums
