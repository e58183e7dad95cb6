"""What a detector is: a frozen dataclass that is called with a classifier and images, and gives each a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, final

import torch

from whyfooled.classifier import Classifier, check_finite
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_classifier, check_images, name_images
from whyfooled.errors import ModelError, ParameterError, bad_parameter
from whyfooled.registry import Card, describe
from whyfooled.types import Images, Logits, PerImage


class Detector(ABC):
    """A score for each image by itself, without its clean version: the larger, the more it looks attacked.

    Its parameters are its fields, `score` does the work. What a score means is told by the scores of clean images:
    `whyfooled.defences.calibrate`.
    """

    card: ClassVar[Card]

    @final
    @one_thread()
    def __call__(self, classifier: Classifier, images: Images) -> PerImage:
        """Return (n,) the scores; an image's score does not depend on the other images.

        Parameters
        ----------
        classifier
            The classifier that an attack would have to fool.
        images
            (n,c,h,w), values in [0, 1].

        Raises
        ------
        ParameterError
            If the detector has to be fitted to clean images first.
        ImageError
            If the images are not a batch of finite values in [0, 1].
        ModelError
            If logits or scores are not finite.
        """
        check_classifier(classifier)
        check_images(images)
        if not len(images):
            return images.new_zeros(0)
        with torch.no_grad():
            scores = self.score(classifier, images.detach().to(classifier.device))
        finite = torch.isfinite(scores)
        if not finite.all():
            bad = name_images((~finite).nonzero()[:, 0].tolist())
            raise ModelError(f"{self.card.title} must give finite scores; they are NaN or infinite for {bad}.")
        return scores.to(images.device)

    @abstractmethod
    def score(self, classifier: Classifier, images: Images) -> PerImage:
        """Compute (n,) the scores of checked images on the classifier's device."""


class EvadableDetector(Detector):
    """A detector whose score can be attacked, which is the only way to know what it is worth.

    See `whyfooled.defences.Evading`.
    """

    @abstractmethod
    def loss(self, classifier: Classifier, images: Images) -> PerImage:
        """Return (n,) numbers that can be differentiated with respect to the images and fall as the scores fall.

        Where the score has no usable gradient (rounding, a saturated softmax), the loss has one all the same.
        """


class FittingDetector(Detector):
    """A detector that has to see clean images before it can judge others: `fit` makes the one that can."""

    @abstractmethod
    def fit(self, classifier: Classifier, clean: Images) -> EvadableDetector:
        """Learn what clean images look like to the classifier.

        Parameters
        ----------
        classifier
            The classifier that an attack would have to fool.
        clean
            (n,c,h,w), values in [0, 1]: images that nobody has attacked.
        """

    @final
    @one_thread()
    def score(self, classifier: Classifier, images: Images) -> PerImage:
        """Refuse: there is nothing to compare with yet."""
        raise ParameterError(
            f"`{self.card.name}` must be fitted to clean images before it can judge others. Call "
            "calibrate(detector, classifier, clean), or detector.fit(classifier, clean)."
        )


def run(classifier: Classifier, images: Images) -> Logits:
    """Run the classifier, with a graph to the images if they have one, and check that the logits are finite."""
    if not images.requires_grad:
        return classifier.logits(images)
    logits: Logits = classifier(images)
    check_finite(logits)
    return logits


def check_detector(detector: object, argument: str = "detector") -> None:
    """Raise `ParameterError` for anything but a detector, such as its name or its class."""
    if not isinstance(detector, Detector):
        given = detector.__name__ if isinstance(detector, type) else repr(detector)
        raise bad_parameter(argument, "must be a detector, such as MedianFilter()", given)


def check_detectors(detectors: Sequence[object]) -> None:
    """Raise `ParameterError` unless there are detectors, each once."""
    if not detectors:
        raise ParameterError("`detectors` must have at least one entry.")
    for detector in detectors:
        check_detector(detector, "detectors")
    names = [describe(detector) for detector in detectors]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ParameterError(f"`detectors` must be different; {twice} is there twice.")
