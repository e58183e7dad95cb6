"""PGD: projected gradient descent from random starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._steps import project, step_in_ball
from whyfooled.attacks._yardstick import find_safe_margin
from whyfooled.errors import at_least
from whyfooled.registry import Card
from whyfooled.tensors.balls import Ball, check_epsilon, length
from whyfooled.tensors.randomness import image_generators, normal, uniform
from whyfooled.types import Progress, silent


@final
@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient descent from random starts in an ℓ∞ or ℓ2 ball (Madry et al. 2018).

    Parameters
    ----------
    epsilon
        Radius of the ball, for values in [0, 1]: the largest change of a pixel (``"linf"``), or the Euclidean length
        of the change (``"l2"``).
    step_size
        Length of a step; ``2.5 · epsilon / steps`` if None (Madry et al., sec. 5).
    steps
        How many steps at most from each start. An image is done when it reaches its goal.
    restarts
        How many random starts; only images that have not reached their goal go on to the next.
    ball
        ``"linf"`` or ``"l2"``.
    seed
        Seed of the starts; each image has its own, made from this and its content.
    """

    epsilon: float = 4 / 255
    step_size: float | None = None
    steps: int = 20
    restarts: int = 1
    ball: Ball = "linf"
    seed: int = 0

    card: ClassVar[Card] = Card(
        name="pgd",
        title="PGD",
        summary="Steps along the gradient from random starts, kept in an l-infinity or l2 ball.",
        source="Madry, Makelov, Schmidt, Tsipras, Vladu 2018, arXiv 1706.06083, sec. 2.1",
        cost="at most `restarts` x (`steps` + 1) forwards and `restarts` x `steps` backwards; less when fooled sooner",
    )

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon, self.ball)
        at_least("steps", self.steps, 1)
        at_least("restarts", self.restarts, 1)
        if self.step_size is not None:
            check_epsilon(self.step_size, self.ball, "step_size")

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        generators = image_generators(problem.images, self.seed)
        ended = problem.images.clone()
        forwards = torch.zeros(len(problem), dtype=torch.int64, device=ended.device)
        backwards = torch.zeros_like(forwards)
        active = torch.arange(len(problem), device=ended.device)
        for restart in range(self.restarts):
            here = problem.select(active)

            def progress_of_restart(done: int, total: int, doing: str, before: int = restart) -> None:
                progress(before * total + done, self.restarts * total, doing)

            attempt = step_in_ball(
                here,
                start=self._choose_start(here, [generators[i] for i in active.tolist()]),
                epsilon=self.epsilon,
                step_size=2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size,
                steps=self.steps,
                ball=self.ball,
                progress=progress_of_restart,
            )
            ended[active] = attempt.images
            forwards[active] += attempt.forwards
            backwards[active] += attempt.backwards
            if restart + 1 == self.restarts:
                break
            with torch.no_grad():
                logits = here.logits(attempt.images)
                margin = here.goal.margin(logits)
                left = margin > -find_safe_margin(margin, logits)
            forwards[active] += 1
            active = active[left]
            if not len(active):
                break
        return Attempt(ended, forwards, backwards)

    def _choose_start(self, problem: Problem, generators: list[torch.Generator]) -> Tensor:
        images = problem.images
        if self.ball == "linf":
            return problem.clamp(images + self.epsilon * (2 * uniform(images, generators) - 1))
        # Uniform in the ball: a uniform direction, and a radius whose power of the dimension is uniform.
        direction = normal(images, generators) * (problem.high > problem.low)
        share = torch.stack([torch.rand((), generator=generator) for generator in generators]).to(images)
        radius = self.epsilon * share ** (1 / images[0].numel())
        return project(images + direction * (radius.view(-1, 1, 1, 1) / length(direction)), problem, self.epsilon, "l2")
