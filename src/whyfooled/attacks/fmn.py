"""FMN: the fast minimum-norm attack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks._attack import SAFE_MARGIN, Attack, Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._search import Best
from whyfooled.attacks._steps import project
from whyfooled.errors import at_least, bad_parameter, one_of, positive
from whyfooled.registry import Card
from whyfooled.tensors.balls import BALLS, Ball, length
from whyfooled.types import Progress, silent

_TINY = 1e-12


@final
@dataclass(frozen=True)
class FMN(Attack):
    """Fast minimum-norm attack: a ball that shrinks while the goal is reached and grows while not (Pintor et al. 2021).

    Each step goes along the margin's gradient, normalised to the length `step_size`, and back into a ball of radius ε
    around the image. ε is the distance to the linearised boundary until the goal is first reached, and afterwards a
    factor 1 − γ or 1 + γ of itself. Step length and γ fall along a cosine.

    Parameters
    ----------
    steps
        How many steps; each costs one forward and one backward pass.
    ball
        The norm that is to be smallest: ``"l2"`` or ``"linf"``.
    step_size
        ℓ2 length of the first step, α₀ in the paper, for values in [0, 1]; falls to a hundredth.
    gamma
        By what share ε changes at first; must be under 1.
    gamma_final
        By what share ε changes at the end.
    confidence
        By how many logits the goal must be passed; at least 0.001, so that rounding cannot undo it.
    """

    steps: int = 50
    ball: Ball = "l2"
    step_size: float = 1.0
    gamma: float = 0.05
    gamma_final: float = 0.001
    confidence: float = 0.0

    card: ClassVar[Card] = Card(
        name="fmn",
        title="FMN",
        summary="The smallest l2 or l-infinity perturbation that reaches the goal, quickly.",
        source="Pintor, Roli, Brendel, Biggio 2021, arXiv 2102.12827, algorithm 1",
        cost="`steps` forwards and backwards",
    )

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        one_of("ball", self.ball, BALLS)
        positive("step_size", self.step_size)
        for name, value in (("gamma", self.gamma), ("gamma_final", self.gamma_final)):
            if not 0 < value < 1:
                raise bad_parameter(name, "must be between 0 and 1", value)
        at_least("confidence", self.confidence, 0)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        images = problem.images
        best = Best.none(images)
        everywhere = torch.arange(len(problem), device=images.device)
        point = images
        epsilon = torch.full_like(best.size, float("inf"))
        for step in range(self.steps):
            falling = (1 + math.cos(math.pi * step / self.steps)) / 2
            rate = self.step_size * (0.01 + 0.99 * falling)
            gamma = self.gamma_final + (self.gamma - self.gamma_final) * falling
            inputs = point.detach().requires_grad_()
            margin = problem.goal.margin(problem.logits(inputs)) + max(self.confidence, SAFE_MARGIN)
            slope = problem.gradient(margin, inputs)
            with torch.no_grad():
                slope = slope * problem.movable(point, -slope)
                size = _size(point - images, self.ball)
                reached = margin <= 0
                best.offer(everywhere, point, size, reached)
                # A little beyond the linearised boundary: on it, rounding would decide.
                boundary = size + (margin.abs() + SAFE_MARGIN) / _dual(slope, self.ball).clamp_min(_TINY)
                outside = torch.where(best.found, epsilon * (1 + gamma), boundary)
                inside = torch.minimum(epsilon * (1 - gamma), best.size)
                epsilon = torch.where(reached, inside, outside)
                moved = point - rate * slope / length(slope).clamp_min(_TINY)
                point = project(moved, problem, epsilon.view(-1, 1, 1, 1), self.ball)
            progress(step + 1, self.steps, "attack")
        spent = torch.full_like(everywhere, self.steps)
        return Attempt(best.images, spent, spent.clone())


def _size(delta: Tensor, ball: Ball) -> Tensor:
    flat = delta.flatten(1)
    return flat.abs().amax(1) if ball == "linf" else flat.norm(dim=1)


def _dual(slope: Tensor, ball: Ball) -> Tensor:
    flat = slope.flatten(1)
    return flat.abs().sum(1) if ball == "linf" else flat.norm(dim=1)
