"""The search that attacks for the smallest perturbation share: the goal's weight is read off the best example.

Minimises ``c · max(missing, 0) + penalty(δ)`` in rounds, where `missing` is what the goal lacks in clean margins, so
that no scale of the logits matters. In a round the weight `c` is fixed. At a minimum on the boundary, where the goal is
just reached, the slope of the penalty is that of ``c · missing``: this gives the weight from the linearised boundary at
first, and from the best example afterwards. Twice as much is taken, so that the goal is reached, and three times as
much after a round that did not reach it.

The goal's term does not let go at once where the goal is reached, but over a short way past it, which shrinks with the
steps: the search comes to rest near the boundary, where a sharp term would throw it from one side to the other as
rounding has it. The first round goes down a softened margin, which all classes pull at, so that the search is not
caught at the boundary of whichever class comes first. No round ends early: while the steps grow shorter, every one of
them may gain. The smallest example is kept, whatever round it comes from, and brought to the boundary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from whyfooled.attacks._attack import Attempt
from whyfooled.attacks._best import BISECTIONS, Best, Measure, shorten
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._steps import falling
from whyfooled.attacks._yardstick import Yardstick
from whyfooled.errors import at_least
from whyfooled.tensors.balls import length
from whyfooled.types import PerImage, Progress, silent

_WEIGHT_OVER_MINIMUM = 2
_WEIGHT_AFTER_FAILURE = 3
_HINGE = 0.2
"""Clean margins past the goal over which its term lets go, at the start of a round."""


@runtime_checkable
class Descent(Protocol):
    """How one kind of attack goes down while the weights are fixed: an optimiser's state for a batch of images."""

    @property
    def point(self) -> Tensor:
        """(n,c,h,w) Where the slope of the goal's term is wanted next, and what is judged."""

    def advance(self, slope: Tensor, number: int) -> Descent:
        """Take the step of this number, from 1, given the slope (n,c,h,w) of the goal's term."""


@dataclass(frozen=True)
class Rounds:
    """How long to search.

    Parameters
    ----------
    rounds
        How many weights are tried for each image.
    steps
        Steps in a round.
    confidence, confidence_share
        Logits, and share of the clean margin, by which the goal must be passed; the larger of both counts.
    """

    rounds: int
    steps: int
    confidence: float
    confidence_share: float

    def __post_init__(self) -> None:
        at_least("rounds", self.rounds, 1)
        at_least("steps", self.steps, 1)
        at_least("confidence", self.confidence, 0)
        at_least("confidence_share", self.confidence_share, 0)


@dataclass(frozen=True)
class Start:
    """Where a round begins.

    Parameters
    ----------
    problem
        The images and their goal.
    point
        (n,c,h,w) The best example so far; where there is none, where the last round ended.
    reach
        (n,1,1,1) The ℓ2 length that the round has to find its way in, as the mean size of a value that may change:
        that of the best example, or the distance to the linearised boundary. Half of it in each further round.
    """

    problem: Problem
    point: Tensor
    reach: Tensor


Begin = Callable[[Start], Descent]


def minimise(
    problem: Problem,
    settings: Rounds,
    *,
    begin: Begin,
    growth: Measure,
    size: Measure,
    progress: Progress = silent,
) -> Attempt:
    """Search for the smallest perturbation.

    An image without a gradient is left as it is, at the cost of one pass.

    Parameters
    ----------
    problem
        The images and their goal.
    settings
        How long to search.
    begin
        Makes the descent of a round.
    growth
        (n,c,h,w) -> (n,) How fast the penalty of a perturbation grows along its ray, ``δ · ∇penalty(δ)``.
    size
        (n,c,h,w) -> (n,) By what perturbations that reach the goal are compared.
    progress
        Called with the steps done and in all.
    """
    total = settings.rounds * settings.steps
    images = problem.images.clone()
    forwards = torch.ones(len(problem), dtype=torch.int64, device=images.device)
    backwards = forwards.clone()
    yardstick, slope = _take_measure(problem, settings)
    sloping = (slope != 0).flatten(1).any(1).nonzero()[:, 0]
    if len(sloping):
        here = problem.select(sloping)
        search = _Search.begun(here, yardstick.select(sloping), slope[sloping], growth, size)
        for number in range(settings.rounds):

            def progress_of_round(step: int, before: int = number * settings.steps) -> None:
                progress(before + step, total, "attack")

            search = search.after_round(settings.steps, begin, progress_of_round)
        backwards[sloping] += total
        images[sloping] = search.best.images
        forwards[sloping] += total + shorten(here, search.yardstick, search.best, size, BISECTIONS)
        images[sloping] = search.best.images
    progress(total, total, "attack")
    return Attempt(images, forwards, backwards)


def _take_measure(problem: Problem, settings: Rounds) -> tuple[Yardstick, Tensor]:
    """Return the clean margins, and the slope (n,c,h,w) of what is missing at the clean images."""
    inputs = problem.images.detach().requires_grad_()
    logits = problem.logits(inputs)
    yardstick = Yardstick.of(problem.goal, logits, settings.confidence, settings.confidence_share)
    return yardstick, problem.gradient(yardstick.missing(problem.goal, logits), inputs)


@dataclass(frozen=True)
class _Search:
    """What is known between two rounds.

    Parameters
    ----------
    problem, yardstick, growth, size
        As given to `minimise`.
    distance
        (n,) To the linearised boundary.
    weight
        (n,) What the goal's term counts in the next round.
    suggested
        (n,) The weight that the best example suggests.
    ended
        (n,c,h,w) Where the last round ended.
    best
        The smallest examples so far.
    successes
        (n,) How many rounds have ended with an example.
    first
        Whether the next round is the first.
    """

    problem: Problem
    yardstick: Yardstick
    growth: Measure
    size: Measure
    distance: PerImage
    weight: PerImage
    suggested: PerImage
    ended: Tensor
    best: Best
    successes: Tensor
    first: bool = True

    @classmethod
    def begun(cls, problem: Problem, yardstick: Yardstick, slope: Tensor, growth: Measure, size: Measure) -> _Search:
        """Begin from the slope (n,c,h,w) of what is missing at the clean images."""
        # The box is no longer than its diagonal.
        distance = (yardstick.needed / length(slope).flatten()).clamp_max(problem.count_free().sqrt())
        nearest = -distance.view(-1, 1, 1, 1) * slope / length(slope)
        weight = _WEIGHT_OVER_MINIMUM * growth(nearest) / yardstick.needed
        best = Best.none(problem.images)
        return cls(
            problem, yardstick, growth, size, distance, weight, weight, problem.images, best, torch.zeros_like(weight)
        )

    def after_round(self, steps: int, begin: Begin, progress: Callable[[int], None]) -> _Search:
        """Go down once, and choose the weights of the next round."""
        start = self.best.images_or(self.ended)
        descent = begin(Start(self.problem, start, self._reach(start)))
        everywhere = torch.arange(len(self.problem), device=start.device)
        succeeded = torch.zeros_like(self.best.found)
        suggested = self.suggested.clone()
        inputs = start
        for step in range(1, steps + 1):
            inputs = descent.point.detach().requires_grad_()
            logits = self.problem.logits(inputs)
            missing = self.yardstick.missing(self.problem.goal, logits)
            lowered = self.yardstick.softened(self.problem.goal, logits) if self.first else missing
            slope = self.problem.gradient(lowered, inputs)
            with torch.no_grad():
                inputs, reached = inputs.detach(), missing.detach() <= 0
                succeeded |= reached
                kept = self.best.offer(everywhere, inputs, self.size(inputs - self.problem.images), reached)
                suggested = torch.where(kept, self._suggest(inputs, slope), suggested)
                hinge = (1 + missing.detach() / (_HINGE * falling(step - 1, steps, 0.0))).clamp(0, 1)
                term = (self.weight * hinge).view(-1, 1, 1, 1) * slope
                descent = descent.advance(term, step)
            progress(step)
        weight = torch.where(succeeded, suggested, _WEIGHT_AFTER_FAILURE * self.weight)
        return replace(
            self,
            weight=weight,
            suggested=suggested,
            ended=inputs,
            successes=self.successes + self.best.found,
            first=False,
        )

    def _reach(self, start: Tensor) -> Tensor:
        long = torch.maximum(length(start - self.problem.images).flatten(), self.distance)
        long = torch.where(self.best.found, length(self.best.images - self.problem.images).flatten(), long)
        return (long / self.problem.count_free().sqrt() * 0.5**self.successes).view(-1, 1, 1, 1)

    def _suggest(self, example: Tensor, slope: Tensor) -> PerImage:
        """Return (n,) the weight under which an example would be a minimum, twice; the last one where none would."""
        # A value at its bound is held there by the bound, not by the penalty.
        free = (example > self.problem.low) & (example < self.problem.high)
        delta = (example - self.problem.images) * free
        gain = -(slope * delta).flatten(1).sum(1)
        weight = _WEIGHT_OVER_MINIMUM * self.growth(delta) / gain
        return torch.where((gain > 0) & weight.isfinite() & (weight > 0), weight, self.weight)
