"""Another classifier that is shown the same pixels: its own input size is reached inside of it."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whyfooled.classifier.classifier import Classifier, Fit


@final
class Resizing(nn.Module):
    """A classifier behind a resize of its input: bilinear, with antialiasing, differentiable, also twice.

    Parameters
    ----------
    classifier
        The classifier, which normalises by itself.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        # Among the weights, so that the digest of another size is another one.
        self.register_buffer("size", torch.tensor(classifier.size))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of (n,c,h,w) images of any size, values in [0, 1]."""
        size = self.classifier.size
        logits: Tensor = self.classifier(F.interpolate(images, size, mode="bilinear", antialias=True))
        return logits


def resizing(classifier: Classifier, fit: Fit) -> Classifier:
    """Make a classifier that takes images as another one does, and brings them to its own input size inside.

    Several classifiers then see the same pixels, and one perturbation is the same for all: it is never resized by
    itself. Values are as they come, outside of [0, 1] too.

    Parameters
    ----------
    classifier
        The classifier; nothing about it is changed.
    fit
        How photographs are brought to the images' size: the other classifier's.

    Returns
    -------
    Classifier
        Of the same name, classes and weights, with the input size of `fit`; the classifier itself if it has that `fit`.
    """
    if classifier.fit == fit:
        return classifier
    if classifier.size == fit.size:
        return classifier.with_module(classifier.module, fit=fit)
    mean, std = [0.0] * classifier.channels, [1.0] * classifier.channels
    names, name = classifier.class_names, classifier.name
    several = classifier.several_labels
    resized = Classifier(Resizing(classifier), mean, std, class_names=names, name=name, fit=fit, several_labels=several)
    resized.notes = classifier.notes
    return resized
