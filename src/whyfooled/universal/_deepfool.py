"""DeepFool: small perturbations that fool the classifier, one for each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.saliency.backward.gradients import logit_gradients, plain_logits
from whyfooled.tensors.balls import Ball, nearest_plane
from whyfooled.types import Classes, Flags, Images

_BEYOND = 1e-5
"""By what share of the largest logit a step goes beyond the linearised boundary, on which rounding would decide."""


@final
@dataclass(frozen=True)
class DeepFool:
    """Steps to the nearest linearised boundary until the class is another (Moosavi-Dezfooli et al. 2016, algorithm 2).

    Parameters
    ----------
    ball
        In which norm it is the nearest.
    candidates
        Among how many classes of the largest logits, the image's own one counted.
    overshoot
        By which share of itself the sum of the steps goes further, so that it crosses the boundary.
    steps
        How many steps at most.
    """

    ball: Ball
    candidates: int
    overshoot: float
    steps: int

    def __call__(self, classifier: Classifier, images: Images, classes: Classes) -> tuple[Images, Flags]:
        """Find perturbations, and whether with them each image is of another class; 0 for one that is so already.

        Parameters
        ----------
        images
            (n,c,h,w); their values may lie outside [0, 1].
        classes
            (n,) What is to be left.

        Returns
        -------
        tuple
            (n,c,h,w) The perturbations; (n,) whether they succeed.
        """
        sums = torch.zeros_like(images)
        fooled = torch.zeros_like(classes, dtype=torch.bool)
        for step in range(self.steps + 1):
            places = (~fooled).nonzero()[:, 0]
            inputs = (images[places] + (1 + self.overshoot) * sums[places]).requires_grad_()
            logits = plain_logits(classifier, inputs)
            left = logits.argmax(1) == classes[places]
            fooled[places[~left]] = True
            if step == self.steps or not left.any():
                break
            sums[places[left]] += self._step(logits, classes[places], inputs)[left]
        return (1 + self.overshoot) * sums, fooled

    def _step(self, logits: Tensor, classes: Classes, inputs: Tensor) -> Tensor:
        """Return the smallest step to the nearest of the boundaries to other classes, were the logits linear."""
        class_column = classes.long().unsqueeze(1)
        others = (
            logits.detach()
            .scatter(1, class_column, float("-inf"))
            .topk(min(self.candidates, logits.shape[1]) - 1)
            .indices
        )
        gradients = logit_gradients(logits, torch.cat([class_column, others], 1), inputs)
        towards = gradients[:, 1:] - gradients[:, :1]
        gaps = (logits.gather(1, class_column) - logits.gather(1, others)).detach()
        rounding = _BEYOND * logits.detach().abs().amax(1, keepdim=True)
        return nearest_plane(gaps + rounding, -towards, self.ball)
