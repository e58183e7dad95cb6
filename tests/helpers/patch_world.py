"""A world in which it is known where every perturbation lies: all of it in one patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from tests.helpers.models import linear
from whyfooled.registry import Card

SIDE = 8
PATCH = torch.zeros(SIDE, SIDE)
PATCH[1:5, 0:3] = 1
"""Twelve of 64 pixels, left of the middle."""
STEP = 0.45


def classifier():
    """Make one that gives class 1 where the patch is brighter than a half, else class 0; never class 2."""
    weight = torch.zeros(3, 3 * SIDE * SIDE)
    weight[1] = PATCH.expand(3, -1, -1).flatten() / (3 * 12)
    return linear(weight, torch.tensor([0.5, 0.0, -5.0]), side=SIDE)


def write_dark_images(path, count=14):
    """Write images whose patch is dark: the first black, so that the attack fails; the second labelled as class 2."""
    pixels = np.random.default_rng(0).integers(25, 90, (count, SIDE, SIDE, 3), dtype=np.uint8)
    pixels[0] = 0
    labels = np.zeros(count, dtype=np.int64)
    labels[1] = 2
    np.savez(path, images=pixels, labels=labels)
    return str(path)


@dataclass(frozen=True)
class Patch:
    """Brighten the patch."""

    card: ClassVar[Card] = Card("patch", "Patch", "Brightens the patch.", "nobody", "nothing")

    def __call__(self, classifier, images, goal):
        return images + STEP * PATCH


@dataclass(frozen=True)
class There:
    """A map of the patch, for every class."""

    card: ClassVar[Card] = Card("there", "There", "The patch.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        return PATCH.expand(*classes.shape, 1, SIDE, SIDE).clone()


@dataclass(frozen=True)
class Opposite:
    """A map of the patch, mirrored."""

    card: ClassVar[Card] = Card("opposite", "Opposite", "The mirrored patch.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        return PATCH.flip(1).expand(*classes.shape, 1, SIDE, SIDE).clone()


@dataclass(frozen=True)
class ByClass:
    """A map of the patch for class 1, of the mirrored one for class 0, twice as high where the patch is bright."""

    card: ClassVar[Card] = Card("by-class", "By class", "A patch of the class.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        both = torch.stack([PATCH.flip(1), PATCH, torch.zeros(SIDE, SIDE)])
        bright = 1 + (classifier.predict(images) == 1).to(images)
        return both[classes].unsqueeze(-3) * bright.view(-1, *[1] * (classes.ndim + 2))
