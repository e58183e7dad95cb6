"""APGD for the smallest perturbation: the ball's radius is found by bisection."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from whyfooled.attacks._ascent import ascend
from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._best import BISECTIONS, Best, shorten
from whyfooled.attacks._losses import Objective
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._steps import project
from whyfooled.attacks._yardstick import Yardstick
from whyfooled.errors import at_least, one_of
from whyfooled.registry import Card
from whyfooled.tensors.balls import BALLS, Ball, dual_measure, measure
from whyfooled.types import Images, PerImage, Progress, silent

_FIRST_RADIUS = 2
"""In distances to the linearised boundary."""
_GROWTH = 2
"""Of the radius, while nothing is found."""


@final
@dataclass(frozen=True)
class MinimalAPGD(Attack):
    """APGD again and again, in balls of which the smallest that holds an example is searched for by bisection.

    The first radius is twice the distance to the linearised boundary. Each image has a radius of its own: it is doubled
    until an example is found, and lies afterwards between the largest in which none was found and the smallest
    example's norm. A run begins at the smallest example, brought into the ball, or where the last run ended. At last
    the way from the image to the smallest example is bisected.

    [ours] The paper has APGD in a ball alone. What is made smaller is the margin: cross-entropy leads between several
    classes where they are all near, and where to, depends on the scale of the logits.

    Parameters
    ----------
    steps
        How many steps at most in each ball.
    searches
        In how many balls.
    ball
        The norm that is to be smallest: ``"l2"`` or ``"linf"``.
    """

    steps: int = 20
    searches: int = 10
    ball: Ball = "l2"

    card: ClassVar[Card] = Card(
        name="apgd-minimal",
        title="Minimal APGD",
        summary="The smallest l2 or l-infinity perturbation, by APGD in balls whose radius is bisected.",
        source="Croce, Hein 2020, arXiv 2003.01690, algorithm 1",
        cost="at most `searches` x (`steps` + 1) + 7 forwards and `searches` x `steps` + 1 backwards; less, as a "
        "search ends with its first example",
    )

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        at_least("searches", self.searches, 1)
        one_of("ball", self.ball, BALLS)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        yardstick, radius = self._take_measure(problem)
        forwards = torch.ones(len(problem), dtype=torch.int64, device=radius.device)
        backwards = forwards.clone()
        objective = Objective("margin", problem.goal)
        best = Best.none(problem.images)
        ended = problem.images
        everywhere = torch.arange(len(problem), device=radius.device)
        total = self.searches * self.steps
        empty = torch.zeros_like(radius)
        for number in range(self.searches):
            start = best.images_or(ended)

            def progress_of_search(done: int, before: int = number * self.steps) -> None:
                progress(before + done, total, "attack")

            attempt, reached = ascend(
                problem,
                objective,
                start=project(start, problem, radius.view(-1, 1, 1, 1), self.ball),
                radius=radius,
                steps=self.steps,
                ball=self.ball,
                progress=progress_of_search,
            )
            ended = attempt.images
            forwards += attempt.forwards
            backwards += attempt.backwards
            best.offer(everywhere, ended, self._measure(ended - problem.images), reached)
            empty = torch.where(reached, empty, radius)
            radius = torch.where(best.found, (empty + best.size) / 2, self._limit(_GROWTH * radius, problem))
        forwards += shorten(problem, yardstick, best, self._measure, BISECTIONS)
        return Attempt(best.images_or(ended), forwards, backwards)

    def _take_measure(self, problem: Problem) -> tuple[Yardstick, PerImage]:
        """Return the clean margins, and (n,) the first radius."""
        inputs = problem.images.detach().requires_grad_()
        logits = problem.logits(inputs)
        yardstick = Yardstick.of(problem.goal, logits, confidence=0.0, share=0.0)
        slope = problem.gradient(yardstick.missing(problem.goal, logits), inputs)
        return yardstick, self._limit(_FIRST_RADIUS * yardstick.needed / dual_measure(slope, self.ball), problem)

    def _limit(self, radius: PerImage, problem: Problem) -> PerImage:
        """Bring radii down to that of a ball which holds the whole box."""
        return radius.clamp_max(1.0 if self.ball == "linf" else math.sqrt(problem.images[0].numel()))

    def _measure(self, delta: Images) -> PerImage:
        return measure(delta, self.ball)
