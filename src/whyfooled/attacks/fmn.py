"""FMN: the fast minimum-norm attack."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._best import Best, shorten
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._steps import falling, project
from whyfooled.attacks._yardstick import Yardstick
from whyfooled.errors import at_least, bad_parameter, one_of, positive
from whyfooled.registry import Card
from whyfooled.tensors.balls import BALLS, Ball, dual_measure, length, measure
from whyfooled.types import Logits, PerImage, Progress, silent

_TINY = 1e-12
_LAST_STEP = 0.02
_BISECTIONS = 5

Missing = Callable[[Logits], PerImage]


@final
@dataclass(frozen=True)
class FMN(Attack):
    """Fast minimum-norm attack: a ball that shrinks while the goal is reached and grows while not (Pintor et al. 2021).

    Each step goes along the margin's gradient, normalised to a share of ε, and back into a ball of radius ε around the
    image. ε is the distance to the linearised boundary until the goal is first reached, and afterwards a factor 1 − γ
    or 1 + γ of itself. Step length and γ fall along a cosine.

    Differs from the paper: [ours] the step's length is a share of ε. A second run, from the image again, goes along the
    gradient of a softened margin, ``true − τ · logsumexp(others / τ)`` for a τ of a tenth of the clean margin, and so
    may find another class's boundary; the nearer of both examples is kept, and the way from the image to it bisected.

    Parameters
    ----------
    steps
        How many steps in the first run; the second has 6 fewer.
    ball
        The norm that is to be smallest: ``"l2"`` or ``"linf"``.
    step_size
        Length of the first step, α₀ in the paper, as a share of ε; in ℓ∞, of the longest perturbation in the ball.
        Falls to a fiftieth.
    gamma
        By what share ε changes at first; must be under 1.
    gamma_final
        By what share ε changes at the end.
    confidence
        By how many logits the goal must be passed; at least a thousandth of the clean image's margin, so that rounding
        cannot undo it.
    confidence_share
        The same as a share of the clean image's margin; the larger of both counts.
    """

    steps: int = 100
    ball: Ball = "l2"
    step_size: float = 0.5
    gamma: float = 0.05
    gamma_final: float = 0.001
    confidence: float = 0.0
    confidence_share: float = 0.0

    card: ClassVar[Card] = Card(
        name="fmn",
        title="FMN",
        summary="The smallest l2 or l-infinity perturbation that reaches the goal, quickly.",
        source="Pintor, Roli, Brendel, Biggio 2021, arXiv 2102.12827, algorithm 1",
        cost="2 x `steps` forwards, and 6 backwards fewer",
    )

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        one_of("ball", self.ball, BALLS)
        positive("step_size", self.step_size)
        for name, value in (("gamma", self.gamma), ("gamma_final", self.gamma_final)):
            if not 0 < value < 1:
                raise bad_parameter(name, "must be between 0 and 1", value)
        at_least("confidence", self.confidence, 0)
        at_least("confidence_share", self.confidence_share, 0)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        with torch.no_grad():
            yardstick = Yardstick.of(
                problem.goal, problem.logits(problem.images), self.confidence, self.confidence_share
            )
        second = max(self.steps - 1 - _BISECTIONS, 0)
        total = self.steps + second

        def soften(logits: Logits) -> PerImage:
            return yardstick.softened(problem.goal, logits)

        best = self._run(problem, yardstick, self.steps, None, lambda done: progress(done, total, "attack"))
        other = self._run(problem, yardstick, second, soften, lambda done: progress(self.steps + done, total, "attack"))
        everywhere = torch.arange(len(problem), device=best.size.device)
        best.offer(everywhere, other.images, other.size, other.found)
        bisected = shorten(problem, yardstick, best, self._measure, _BISECTIONS)
        spent = torch.full_like(bisected, total)
        return Attempt(best.images, 1 + spent + bisected, spent)

    def _run(
        self,
        problem: Problem,
        yardstick: Yardstick,
        steps: int,
        soften: Missing | None,
        progress: Callable[[int], None],
    ) -> Best:
        """Go from the clean images along the gradient of what is missing, softened if that is asked for."""
        images = problem.images
        best = Best.none(images)
        everywhere = torch.arange(len(problem), device=images.device)
        longest = self._find_longest(problem)
        point = images
        epsilon = torch.full_like(best.size, float("inf"))
        for step in range(steps):
            rate = self.step_size * falling(step, steps, _LAST_STEP)
            gamma = self.gamma * falling(step, steps, self.gamma_final / self.gamma)
            inputs = point.detach().requires_grad_()
            logits = problem.logits(inputs)
            missing = yardstick.missing(problem.goal, logits)
            slope = problem.gradient(missing if soften is None else soften(logits), inputs)
            with torch.no_grad():
                missing = missing.detach()
                slope = slope * problem.movable(point, -slope)
                size = self._measure(point - images)
                reached = missing <= 0
                best.offer(everywhere, point, size, reached)
                # A little beyond the linearised boundary: on it, rounding would decide.
                boundary = size + (missing.abs() + yardstick.safe) / dual_measure(slope, self.ball).clamp_min(_TINY)
                outside = torch.where(best.found, epsilon * (1 + gamma), boundary)
                inside = torch.minimum(epsilon * (1 - gamma), best.size)
                # No perturbation in the box is longer than its diagonal.
                epsilon = torch.where(reached, inside, outside).clamp_max(math.sqrt(images[0].numel()))
                ahead = (rate * epsilon * longest).view(-1, 1, 1, 1)
                moved = point - ahead * slope / length(slope).clamp_min(_TINY)
                point = project(moved, problem, epsilon.view(-1, 1, 1, 1), self.ball)
            progress(step + 1)
        return best

    def _measure(self, delta: Tensor) -> PerImage:
        return measure(delta, self.ball)

    def _find_longest(self, problem: Problem) -> PerImage:
        """Return (n,) the ℓ2 length of the longest perturbation in a ball of radius 1."""
        if self.ball == "l2":
            return torch.ones_like(problem.images[:, 0, 0, 0])
        return problem.count_free().sqrt()
