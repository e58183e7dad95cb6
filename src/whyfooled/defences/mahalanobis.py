"""How far an image's features are from those of clean images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_classifier, check_images
from whyfooled.defences.detector import EvadableDetector, FittingDetector
from whyfooled.defences.layer_maps import run_to_maps
from whyfooled.errors import ModelError, bad_parameter
from whyfooled.registry import Card
from whyfooled.types import Images, PerImage

_AT_ONCE = 64
"""Clean images whose features are computed together."""


@final
@dataclass(frozen=True)
class Mahalanobis(FittingDetector):
    """Suspect images whose features lie far from those of clean images, as their spread measures it (Lee et al. 2018).

    The features are the means over the places of a layer's units. The score is the squared Mahalanobis distance to the
    nearest class mean, with one covariance for all classes.

    Differs from the paper: [ours] one layer and no regression on adversarial images, which would have to be those of
    the attack to be detected; classes are those that the classifier predicts, so no labels are needed; the covariance
    is shrunk towards a multiple of the identity (Chen et al. 2010, the oracle approximating estimator), since there may
    be fewer images than units. A class that is predicted on a single image has no mean of its own.

    Parameters
    ----------
    layer
        Name of the layer (as in ``module.named_modules()``); if None, the last whose output has places.
    by_class
        Whether each class has a mean of its own; else there is one for all images.
    """

    layer: str | None = None
    by_class: bool = True

    card: ClassVar[Card] = Card(
        name="mahalanobis",
        title="Mahalanobis distance",
        summary="Images whose features lie far from those of clean images of every class.",
        source="Lee, Lee, Lee, Shin 2018, arXiv 1807.03888, sec. 2.1 and 2.2",
        cost="1 forward; 1 for each clean image that it is fitted to",
    )

    @one_thread()
    def fit(self, classifier: Classifier, clean: Images) -> FittedMahalanobis:
        """Take the mean features of each class, and how they vary within classes."""
        check_classifier(classifier)
        check_images(clean)
        if not len(clean):
            raise bad_parameter("clean", "must be at least two images", 0)
        features, predicted = self._find_features(classifier, clean.to(classifier.device))
        groups = predicted if self.by_class else torch.zeros_like(predicted)
        classes, counts = torch.unique(groups, return_counts=True)
        several = classes[counts > 1]
        if not len(several):
            fix = "Give more, or take mahalanobis(by_class=false)." if len(clean) > 1 else ""
            rule = "must have at least two images that the classifier gives one class"
            raise bad_parameter("clean", rule, f"{len(clean)}, each of another class", fix)
        means = torch.stack([features[groups == group].mean(0) for group in several])
        kept = torch.isin(groups, several)
        residuals = features[kept] - means[torch.searchsorted(several, groups[kept])]
        return FittedMahalanobis(self.layer, means, invert_covariance(residuals, len(residuals) - len(several)))

    @torch.no_grad()
    def _find_features(self, classifier: Classifier, clean: Images) -> tuple[Tensor, Tensor]:
        """Return (n,d) the features of clean images in double precision, and (n,) the classes that are predicted."""
        passes = [run_to_maps(classifier, some, self.layer) for some in torch.split(clean, _AT_ONCE)]
        features = torch.cat([seen.maps.mean((-2, -1)).double() for seen in passes])
        return features, torch.cat([seen.logits.argmax(1) for seen in passes])


@final
@dataclass(frozen=True, eq=False)
class FittedMahalanobis(EvadableDetector):
    """A Mahalanobis distance that knows the features of clean images.

    Parameters
    ----------
    layer
        Name of the layer; the last whose output has places if None.
    means
        (k,d) Mean features of each class that was seen.
    precision
        (d,d) The inverse of the covariance within classes.
    """

    layer: str | None
    means: Tensor
    precision: Tensor

    card: ClassVar[Card] = Mahalanobis.card

    def score(self, classifier: Classifier, images: Images) -> PerImage:
        """Compute (n,) the squared distance to the nearest mean."""
        features = run_to_maps(classifier, images, self.layer).maps.mean((-2, -1)).double()
        apart = features.unsqueeze(1) - self.means.to(features)
        squared = torch.einsum("nkd,de,nke->nk", apart, self.precision.to(features), apart)
        return squared.amin(1).to(images)

    def loss(self, classifier: Classifier, images: Images) -> PerImage:
        """Return the score, which has a gradient."""
        return self.score(classifier, images)


def invert_covariance(residuals: Tensor, freedom: int) -> Tensor:
    """Return (d,d) the inverse of the covariance of (n,d) residuals, shrunk towards a multiple of the identity.

    By how much is the oracle approximating estimate of Chen et al. (2010, eq. 23), for `freedom` degrees of freedom.
    """
    width = residuals.shape[1]
    covariance = residuals.T @ residuals / max(freedom, 1)
    trace, squares = float(covariance.trace()), float(covariance.square().sum())
    if trace == 0:
        raise ModelError("The features of clean images must vary, and they do not: they are the same for all images.")
    above = (1 - 2 / width) * squares + trace**2
    below = (freedom + 1 - 2 / width) * (squares - trace**2 / width)
    shrinkage = min(1.0, above / below) if below > 0 else 1.0
    shrunk = (1 - shrinkage) * covariance + shrinkage * trace / width * torch.eye(width).to(covariance)
    precision: Tensor = torch.linalg.inv(shrunk)
    return precision
