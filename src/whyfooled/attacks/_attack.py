"""What an attack is: a frozen dataclass that is called with a classifier, images and a goal, and gives images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier, check_finite
from whyfooled.goals import Goal
from whyfooled.registry import Card
from whyfooled.types import Counts, Images, Logits, PerImage, Progress, silent


@final
@dataclass(frozen=True, eq=False)
class Attempt:
    """What an attack ended with, whether it reached its goal or not.

    Parameters
    ----------
    images
        (n,c,h,w) The last or best image for each.
    forwards, backwards
        (n,) Passes spent on each image.
    """

    images: Images
    forwards: Counts
    backwards: Counts


class Attack(ABC):
    """An attack of this package. Any callable ``(classifier, images, goal) -> images`` is as good to `run_attack`."""

    card: ClassVar[Card]

    @final
    def __call__(self, classifier: Classifier, images: Images, goal: Goal) -> Images:
        """Make adversarial images (n,c,h,w), values in [0, 1]; not verified: `run_attack` does that."""
        with torch.enable_grad():
            return self.attempt(classifier, images, goal).images

    @abstractmethod
    def attempt(self, classifier: Classifier, images: Images, goal: Goal, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""


SAFE_MARGIN = 1e-3
"""Logits by which a goal must be passed before a search believes it: rounding differs between batch sizes. [ours]"""


def evaluate(classifier: Classifier, images: Tensor) -> Logits:
    """Run the classifier with a graph to the images, and check its logits."""
    logits: Tensor = classifier(images)
    check_finite(logits)
    return logits


def gradient(loss: PerImage, inputs: Tensor) -> Tensor:
    """Differentiate a loss that is one number for each image."""
    return torch.autograd.grad(loss.sum(), inputs)[0]
