"""How sure the classifier is: the largest softmax, and the margin between its two strongest classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_classifier, check_images
from whyfooled.defences.detector import EvadableDetector, FittingDetector, run
from whyfooled.errors import bad_parameter
from whyfooled.registry import Card
from whyfooled.types import Images, Logits, PerImage


@final
@dataclass(frozen=True)
class LargestSoftmax(EvadableDetector):
    """Suspect images whose largest softmax probability p is small (Hendrycks & Gimpel 2017).

    The score is ``log((1 − p) / p)``, which has the order of ``−p``, and goes on where p is rounded to 1. [ours]
    """

    card: ClassVar[Card] = Card(
        name="softmax",
        title="Largest softmax",
        summary="Images that the classifier is not sure of: a small largest softmax probability.",
        source="Hendrycks, Gimpel 2017, arXiv 1610.02136, sec. 2",
        cost="1 forward",
    )

    @one_thread()
    def score(self, classifier: Classifier, images: Images) -> PerImage:
        """Compute (n,) minus the log-odds of the class that is predicted."""
        logits = run(classifier, images)
        predicted = logits.argmax(1, keepdim=True)
        return logits.scatter(1, predicted, float("-inf")).logsumexp(1) - logits.gather(1, predicted)[:, 0]

    @one_thread()
    def loss(self, classifier: Classifier, images: Images) -> PerImage:
        """Return the score, which has a gradient everywhere."""
        return self.score(classifier, images)


@final
@dataclass(frozen=True)
class TwoSidedMargin(FittingDetector):
    """Suspect images whose margin is unusual, be it small or large.

    The margin is the largest logit minus the second largest. Attacks that look for the smallest perturbation end at a
    margin near 0, a whole projected gradient descent far beyond any clean image's; so a score of one side takes the one
    for clean where it finds the other. The score is ``−log10 p``, with p twice the smaller share of clean images that
    lie as far out to one side (the image itself counted among them). [ours]
    """

    card: ClassVar[Card] = Card(
        name="margin",
        title="Two-sided margin",
        summary="Images whose two largest logits are closer together, or farther apart, than those of clean images.",
        source="this package; the margin of Yang et al. 2020, arXiv 1906.03499, taken to both sides",
        cost="1 forward; 1 for each clean image that it is fitted to",
    )

    @one_thread()
    def fit(self, classifier: Classifier, clean: Images) -> FittedMargin:
        """Keep the margins of clean images."""
        check_classifier(classifier)
        check_images(clean)
        if len(clean) < _FEWEST:
            raise bad_parameter("clean", f"must be at least {_FEWEST} images for the two-sided margin", len(clean))
        margins = find_margin(classifier.logits(clean.to(classifier.device)))
        return FittedMargin(margins.sort().values)


_FEWEST = 2


@final
@dataclass(frozen=True, eq=False)
class FittedMargin(EvadableDetector):
    """A two-sided margin that knows the margins of clean images.

    Parameters
    ----------
    margins
        (m,) Those of clean images, in rising order.
    """

    margins: Float[Tensor, " m"]

    card: ClassVar[Card] = TwoSidedMargin.card

    def score(self, classifier: Classifier, images: Images) -> PerImage:
        """Compute (n,) ``−log10`` of the two-sided share of clean images that lie as far out."""
        margin = find_margin(run(classifier, images)).detach().unsqueeze(1)
        margins = self.margins.to(margin)
        above, below = (margins >= margin).sum(1), (margins <= margin).sum(1)
        share = 2 * (1 + torch.minimum(above, below)) / (1 + len(margins))
        return -share.clamp_max(1).log10()

    def loss(self, classifier: Classifier, images: Images) -> PerImage:
        """Return how far the margin is from the median of clean images, in medians."""
        margin = find_margin(run(classifier, images))
        middle = self.margins.to(margin).median()
        return (margin - middle).abs() / middle.clamp_min(torch.finfo(middle.dtype).tiny)


def find_margin(logits: Logits) -> PerImage:
    """Return (n,) the largest logit minus the second largest."""
    first, second = logits.topk(2, dim=1).values.unbind(1)
    return first - second
