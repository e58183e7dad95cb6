"""The attack that knows the detectors: an image that fools the classifier and is not suspicious to them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks import Attack, Attempt, Problem
from whyfooled.classifier.passes import count_passes
from whyfooled.defences.detector import EvadableDetector, FittingDetector
from whyfooled.errors import ParameterError, at_least, bad_parameter
from whyfooled.registry import Card
from whyfooled.tensors.balls import Ball, check_epsilon, farthest, inside, length
from whyfooled.types import PerImage, Progress, silent

_FIRST_STEP = 1 / 4
"""Length of the first step, in radii; it falls to 0 along a cosine. [ours]"""
_ROUNDING = 1e-3
"""What part of a slope is none any more. [ours]"""
_SAFE_SHARE = 1e-2
"""By what share of the clean margin the goal is passed before an image counts. [ours]"""


@final
@dataclass(frozen=True)
class Evading(Attack):
    """Projected gradient descent on what is missing to the goal and on the detectors' scores, together.

    Each step goes down the slope of each detector's loss and, where the goal is not reached, down that of the goal's
    loss, all equally long; from a detector's slope that would lead farther away from a goal that is not reached, the
    part that does is taken off (Bryniarski et al. 2022, whose attack is selective or orthogonal; this one is both).
    Rounding passes gradients straight through, and
    noise is averaged over: see `EvadableDetector.loss`. Of all images on the way that reach the goal, the one that is
    least suspicious is kept.

    Parameters
    ----------
    detectors
        The detectors to evade, fitted if they have to be.
    epsilon
        Radius of the ball, for values in [0, 1]: the largest change of a pixel (``"linf"``), or the Euclidean length of
        the change (``"l2"``).
    steps
        How many steps.
    ball
        ``"linf"`` or ``"l2"``.
    """

    detectors: tuple[Any, ...]
    epsilon: float = 4 / 255
    steps: int = 100
    ball: Ball = "linf"

    switches_labels = False

    card: ClassVar[Card] = Card(
        name="evading",
        title="Evading attack",
        summary="Steps along the gradients of the goal and of the detectors' scores, kept in an l-infinity or l2 ball.",
        source="Carlini, Wagner 2017, arXiv 1705.07263; Bryniarski, Hingun, Pachuca, Wang, Carlini 2022, "
        "arXiv 2106.15023",
        cost="(`steps` + 1) x (1 forward, 1 backward, and those of each detector)",
    )

    def __post_init__(self) -> None:
        if not self.detectors:
            raise ParameterError("`detectors` must have at least one entry.")
        for detector in self.detectors:
            check_evadable(detector)
        check_epsilon(self.epsilon, self.ball)
        at_least("steps", self.steps, 1)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        images = problem.images.clone()
        kept, least = images.clone(), torch.full_like(images[:, 0, 0, 0], math.inf)
        safe = torch.zeros_like(least)
        with count_passes(problem.classifier) as passes:
            for step in range(self.steps + 1):
                slope, margin, suspicion = self._look(problem, images, safe)
                safe = _SAFE_SHARE * margin.abs() if step == 0 else safe
                better = (margin < -safe) & (suspicion < least)
                kept[better], least[better] = images[better], suspicion[better]
                if step < self.steps:
                    reach = self.epsilon * _FIRST_STEP * (1 + math.cos(math.pi * step / self.steps)) / 2
                    moved = images - farthest(slope, reach, self.ball) - problem.images
                    images = problem.clamp(problem.images + inside(moved, self.epsilon, self.ball))
                progress(step + 1, self.steps + 1, "attack")
        ended = torch.where(least.isfinite().view(-1, 1, 1, 1), kept, images)
        count = torch.full_like(problem.numbers, 0)
        # Every image takes part in every step, so all have the same share of the passes.
        return Attempt(ended, count + passes.forwards // len(count), count + passes.backwards // len(count))

    def _look(self, problem: Problem, images: Tensor, safe: PerImage) -> tuple[Tensor, PerImage, PerImage]:
        """Return the slope to go down, what is missing to the goal, and the sum of the detectors' losses."""
        inputs = images.detach().requires_grad_()
        logits = problem.logits(inputs)
        margin = problem.goal.margin(logits.detach())
        missed = (margin >= -safe).view(-1, 1, 1, 1)
        toward = _unit(problem.gradient(problem.goal.loss(logits), inputs))
        slope = toward * missed
        suspicion = torch.zeros_like(margin)
        for detector in self.detectors:
            loss = detector.loss(problem.classifier, inputs)
            away = _unit(problem.gradient(loss, inputs))
            against = (away * toward).flatten(1).sum(1).clamp_max(0).view(-1, 1, 1, 1) * missed
            rest = away - against * toward
            # Of slopes that are opposite, as of confidence in the class to be left, rounding alone would be left.
            slope = slope + rest * (length(rest) > _ROUNDING)
            suspicion = suspicion + loss.detach()
        return slope, margin, suspicion


def check_evadable(detector: object) -> None:
    """Raise `ParameterError` for what has no loss to go down, or has to be fitted first."""
    if isinstance(detector, FittingDetector):
        fix = "Take detector.fit(classifier, clean)."
        raise bad_parameter("detectors", "must be fitted to clean images before they can be evaded", detector, fix)
    if not isinstance(detector, EvadableDetector):
        given = detector.__name__ if isinstance(detector, type) else repr(detector)
        raise bad_parameter("detectors", "must be detectors that have a loss, such as MedianFilter()", given)


def _unit(slope: Tensor) -> Tensor:
    return slope / length(slope).clamp_min(torch.finfo(slope.dtype).tiny)
