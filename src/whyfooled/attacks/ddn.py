"""DDN: decoupled direction and norm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._best import BISECTIONS, Best, shorten
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._steps import falling
from whyfooled.attacks._yardstick import Yardstick
from whyfooled.errors import at_least, bad_parameter, positive
from whyfooled.registry import Card
from whyfooled.tensors.balls import length, measure
from whyfooled.types import Progress, silent

_LAST_STEP = 0.02
_TINY = 1e-12
_FIRST = 2
"""From farther out than the linearised boundary, other classes' boundaries are in reach. [ours]"""


@final
@dataclass(frozen=True)
class DDN(Attack):
    """Decoupled direction and norm: steps on a sphere that shrinks once the goal is reached (Rony et al. 2019).

    Each step goes along the loss's gradient, normalised, and the perturbation is then given the length ε, which is a
    factor 1 − γ of itself after a step that reached the goal, and 1 + γ after one that did not.

    Differs from the paper: [ours] the first ε is twice the distance to the linearised boundary, and the step's length a
    share of ε; the loss is the softened margin of `FMN`, which does not depend on the scale of the logits as the
    cross-entropy does; γ falls with the steps; the way from the image to the example is bisected at the end. Pixel
    values are not rounded to 256 levels.

    Parameters
    ----------
    steps
        How many steps.
    step_size
        Length of the first step, α in the paper, as a share of ε. Falls to a fiftieth along a cosine.
    gamma
        By what share ε changes at first, γ in the paper; must be under 1. Falls to a fiftieth, as the steps do.
    confidence
        By how many logits the goal must be passed; at least a thousandth of the clean image's margin, so that rounding
        cannot undo it.
    confidence_share
        The same as a share of the clean image's margin; the larger of both counts.
    """

    steps: int = 200
    step_size: float = 1.0
    gamma: float = 0.05
    confidence: float = 0.0
    confidence_share: float = 0.0

    card: ClassVar[Card] = Card(
        name="ddn",
        title="DDN",
        summary="The smallest l2 perturbation that reaches the goal, its direction and its length found in turn.",
        source="Rony, Hafemann, Oliveira, Ben Ayed, Sabourin, Granger 2019, arXiv 1811.09600, algorithm 1",
        cost="`steps` + 1 forwards, `steps` backwards, and 6 forwards",
    )

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        positive("step_size", self.step_size)
        if not 0 < self.gamma < 1:
            raise bad_parameter("gamma", "must be between 0 and 1", self.gamma)
        at_least("confidence", self.confidence, 0)
        at_least("confidence_share", self.confidence_share, 0)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        with torch.no_grad():
            clean_logits = problem.logits(problem.images)
        yardstick = Yardstick.of(problem.goal, clean_logits, self.confidence, self.confidence_share)
        best = Best.none(problem.images)
        everywhere = torch.arange(len(problem), device=best.size.device)
        point, epsilon = problem.images, torch.zeros_like(best.size)
        for step in range(self.steps):
            inputs = point.detach().requires_grad_()
            logits = problem.logits(inputs)
            slope = problem.gradient(yardstick.softened(problem.goal, logits), inputs)
            with torch.no_grad():
                missing = yardstick.missing(problem.goal, logits.detach())
                slope = slope * problem.movable(point, -slope)
                reached = missing <= 0
                best.offer(everywhere, point, measure(point - problem.images, "l2"), reached)
                if step == 0:
                    distance = missing / length(slope).flatten().clamp_min(_TINY)
                    epsilon = (_FIRST * distance).clamp_max(_find_diagonal(problem))
                else:
                    change = self.gamma * falling(step, self.steps, _LAST_STEP)
                    epsilon = epsilon * torch.where(reached, 1 - change, 1 + change)
                ahead = self.step_size * falling(step, self.steps, _LAST_STEP) * epsilon.view(-1, 1, 1, 1)
                delta = point - ahead * slope / length(slope).clamp_min(_TINY) - problem.images
                on_sphere = delta * epsilon.view(-1, 1, 1, 1) / length(delta).clamp_min(_TINY)
                point = problem.clamp(problem.images + on_sphere)
            progress(step + 1, self.steps, "attack")
        bisected = shorten(problem, yardstick, best, partial(measure, ball="l2"), BISECTIONS)
        spent = torch.full_like(bisected, self.steps)
        return Attempt(best.images, 1 + spent + bisected, spent)


def _find_diagonal(problem: Problem) -> float:
    return math.sqrt(problem.images[0].numel())
