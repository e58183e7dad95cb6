"""The search that attacks for the smallest perturbation share: the goal's weight is bisected for each image.

Minimises ``c · max(margin + confidence, 0) + penalty(δ)`` in rounds. In a round the weight `c` is fixed; between
rounds it goes up tenfold while nothing was found, and to the middle of its bracket afterwards. An image leaves a round
when its objective stalls. The smallest example that reaches the goal is kept, whatever round it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from whyfooled.attacks._attack import SAFE_MARGIN, Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.errors import at_least, positive
from whyfooled.types import PerImage, Progress, silent

_STALLED = 1e-4
_CHECKS_A_ROUND = 6


@runtime_checkable
class Descent(Protocol):
    """How one kind of attack goes down while the weights are fixed: an optimiser's state for a batch of images."""

    @property
    def point(self) -> Tensor:
        """(n,c,h,w) Where the slope of the goal's term is wanted next, and what is judged."""

    def advance(self, slope: Tensor, number: int) -> Descent:
        """Take the step of this number, from 1, given the slope (n,c,h,w) of ``c · max(margin + confidence, 0)``."""

    def select(self, keep: Tensor) -> Descent:
        """Keep some of the images only (flags over the batch)."""


@dataclass(frozen=True)
class Rounds:
    """How long to search.

    Parameters
    ----------
    rounds
        How many weights are tried for each image.
    steps
        Most steps in a round.
    initial_constant
        The first weight.
    confidence
        Logits by which the goal must be passed.
    """

    rounds: int
    steps: int
    initial_constant: float
    confidence: float

    def __post_init__(self) -> None:
        at_least("rounds", self.rounds, 1)
        at_least("steps", self.steps, 1)
        positive("initial_constant", self.initial_constant)
        at_least("confidence", self.confidence, 0)


Begin = Callable[[Problem, Tensor], Descent]
Measure = Callable[[Tensor], PerImage]


def minimise(
    problem: Problem,
    settings: Rounds,
    *,
    begin: Begin,
    penalty: Measure,
    size: Measure,
    progress: Progress = silent,
) -> Attempt:
    """Search for the smallest perturbation.

    Parameters
    ----------
    problem
        The images and their goal.
    settings
        How long to search.
    begin
        Makes the descent of a round from the problem and the images (n,c,h,w) that it starts at.
    penalty
        (n,c,h,w) -> (n,) What is traded off against the goal, of a perturbation.
    size
        (n,c,h,w) -> (n,) By what perturbations that reach the goal are compared.
    progress
        Called with the steps done and in all.
    """
    best = Best.none(problem.images)
    weights = _Weights.first(problem.images, settings.initial_constant)
    start = problem.images
    spent = torch.zeros(len(problem), dtype=torch.int64, device=problem.images.device)
    total = settings.rounds * settings.steps
    for number in range(settings.rounds):

        def progress_of_round(step: int, before: int = number * settings.steps) -> None:
            progress(before + step, total, "attack")

        ended, succeeded, evaluations = _round(
            problem, settings, begin(problem, start), weights.now, best, penalty, size, progress_of_round
        )
        spent += evaluations
        weights = weights.after(succeeded)
        start = torch.where(best.found.view(-1, 1, 1, 1), best.images, ended)
    progress(total, total, "attack")
    return Attempt(best.images, spent, spent.clone())


def _round(
    problem: Problem,
    settings: Rounds,
    descent: Descent,
    weight: Tensor,
    best: Best,
    penalty: Measure,
    size: Measure,
    progress: Callable[[int], None],
) -> tuple[Tensor, Tensor, Tensor]:
    """Go down for fixed weights; return where each image ended, whether it succeeded, and its evaluations."""
    ended = descent.point.clone()
    succeeded = torch.zeros(len(problem), dtype=torch.bool, device=ended.device)
    evaluations = torch.zeros(len(problem), dtype=torch.int64, device=ended.device)
    previous = torch.full_like(weight, float("inf"))
    passed = max(settings.confidence, SAFE_MARGIN)
    active = torch.arange(len(problem), device=ended.device)
    here = problem
    for step in range(1, settings.steps + 1):
        inputs = descent.point.detach().requires_grad_()
        margin = here.goal.margin(here.logits(inputs))
        goal_term = weight[active] * (margin + passed).clamp_min(0)
        slope = here.gradient(goal_term, inputs)
        evaluations[active] += 1
        with torch.no_grad():
            delta = inputs.detach() - here.images
            reached = margin.detach() <= -passed
            best.offer(active, inputs.detach(), size(delta), reached)
            succeeded[active] |= reached
            ended[active] = inputs.detach()
            descent = descent.advance(slope, step)
            if step % math.ceil(settings.steps / _CHECKS_A_ROUND) == 0:
                objective = goal_term.detach() + penalty(delta)
                moving = objective < previous[active] * (1 - _STALLED)
                previous[active] = objective
                if not moving.any():
                    break
                if not moving.all():
                    active, here, descent = active[moving], here.select(moving), descent.select(moving)
        progress(step)
    return ended, succeeded, evaluations


@dataclass(frozen=True)
class Best:
    """The smallest example found so far for each image. Lives inside one call of one attack, which fills it.

    Parameters
    ----------
    images
        (n,c,h,w) The example; the clean image where there is none.
    size
        (n,) Its size; infinite where there is none.
    """

    images: Tensor
    size: Tensor

    @classmethod
    def none(cls, images: Tensor) -> Best:
        """Begin with nothing found."""
        return cls(images.clone(), torch.full_like(images[:, 0, 0, 0], float("inf")))

    @property
    def found(self) -> Tensor:
        """(n,) Whether there is an example."""
        return self.size.isfinite()

    def offer(self, index: Tensor, examples: Tensor, size: Tensor, reached: Tensor) -> None:
        """Keep, of some images (`index`), the examples that reach the goal and are smaller than any before."""
        better = reached & (size < self.size[index])
        self.images[index[better]] = examples[better]
        self.size[index[better]] = size[better]


@dataclass(frozen=True)
class _Weights:
    """The weight that each image is at, (n,), between the largest that failed and the smallest that succeeded."""

    now: Tensor
    failed: Tensor
    succeeded: Tensor

    @classmethod
    def first(cls, images: Tensor, weight: float) -> _Weights:
        zeros = torch.zeros_like(images[:, 0, 0, 0])
        return cls(zeros + weight, zeros, torch.full_like(zeros, float("inf")))

    def after(self, success: Tensor) -> _Weights:
        succeeded = torch.where(success, torch.minimum(self.succeeded, self.now), self.succeeded)
        failed = torch.where(success, self.failed, torch.maximum(self.failed, self.now))
        now = torch.where(succeeded.isfinite(), (failed + succeeded) / 2, self.now * 10)
        return _Weights(now, failed, succeeded)
