"""Losses of predictions, and their slopes."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.dependence import differentiate
from whyfooled.classifier.goals import Untargeted
from whyfooled.saliency.backward.gradients import plain_logits
from whyfooled.types import Classes, Images, Logits, PerImage

Loss = Callable[[Logits, Classes], PerImage]
"""One number for each image: the larger, the less its class is seen."""


def cross_entropy(logits: Logits, classes: Classes) -> PerImage:
    """Return (n,) minus the logarithm of the class's probability. Its slope vanishes where the classifier is sure."""
    losses: Tensor = F.cross_entropy(logits, classes.long(), reduction="none")
    return losses


def log_odds_against(logits: Logits, classes: Classes) -> PerImage:
    """Return (n,) the logarithm of the odds against the class; its slope does not vanish."""
    return -Untargeted(classes).loss(logits)


def loss_slopes(
    classifier: Classifier, images: Images, classes: Classes, loss: Loss = cross_entropy
) -> tuple[Images, PerImage]:
    """Differentiate each image's loss with respect to the image, on the true network; and return the losses, (n,)."""
    inputs = images.detach().requires_grad_()
    losses = loss(plain_logits(classifier, inputs), classes)
    slopes = differentiate(losses.sum(), inputs)
    return slopes, losses.detach()
