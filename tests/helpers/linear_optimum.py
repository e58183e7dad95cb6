"""Linear classifiers, on which the nearest adversarial image is known."""

from __future__ import annotations

import torch

from tests.helpers.models import linear


def linear_case(n, seed, classes=4):
    """Draw images far from the bounds of [0, 1], so that the box does not change the nearest adversarial image."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, 192, generator=generator)
    images = 0.5 + 0.05 * torch.randn(n, 3, 8, 8, generator=generator)
    classifier = linear(weight)
    return classifier, images, classifier.predict(images), weight


def distance(weight, images, one, other):
    """Return the distance to the hyperplane on which two classes' logits are equal."""
    w = weight[other] - weight[one]
    return -(images.flatten(1) * w).sum(1) / w.norm(dim=1)
