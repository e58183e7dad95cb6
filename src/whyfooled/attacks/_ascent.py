"""Steps inside a ball whose length finds itself: what APGD does from one start. Images that reach their goal leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from whyfooled.attacks._attack import Attempt
from whyfooled.attacks._losses import Objective
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._steps import project
from whyfooled.attacks._yardstick import find_safe_margin
from whyfooled.classifier.dependence import differentiate
from whyfooled.tensors.balls import Ball, farthest
from whyfooled.types import Flags, Images, PerImage

_FIRST_CHECK, _SHORTER, _SHORTEST = 22, 3, 6
"""In hundredths of all steps: the first checkpoint, by what the next ones come sooner, and how soon at most."""
_ENOUGH_GAINS = 0.75
_MOMENTUM = 0.75
_FIRST_STEP = 2
"""In radii."""


@dataclass(frozen=True)
class _Path:
    """How far the ascents of some images have come.

    Parameters
    ----------
    place
        (n,) Which images they are.
    radius
        (n,1,1,1) The balls' radii.
    point, before
        (n,c,h,w) Where each is, and where it was a step ago.
    step
        (n,1,1,1) Length of a step.
    slope
        (n,c,h,w) Of the loss at `point`.
    loss
        (n,) At `point`.
    best, best_slope
        (n,c,h,w) The point with the smallest loss, and the slope there.
    least
        (n,) The smallest loss.
    gains
        (n,) Steps since the last checkpoint that made the loss smaller.
    least_checked
        (n,) The smallest loss at the last checkpoint.
    halved
        (n,) Whether the step was halved there.
    """

    place: Tensor
    radius: Tensor
    point: Tensor
    before: Tensor
    step: Tensor
    slope: Tensor
    loss: Tensor
    best: Tensor
    best_slope: Tensor
    least: Tensor
    gains: Tensor
    least_checked: Tensor
    halved: Tensor

    @classmethod
    def begun(cls, start: Images, radius: PerImage) -> _Path:
        """Begin at points (n,c,h,w), none of which is judged yet."""
        radius = radius.view(-1, 1, 1, 1)
        endless = torch.full_like(start[:, 0, 0, 0], float("inf"))
        return cls(
            place=torch.arange(len(start), device=start.device),
            radius=radius,
            point=start,
            before=start,
            step=_FIRST_STEP * radius,
            slope=torch.zeros_like(start),
            # The first judgement is no gain.
            loss=-endless,
            best=start,
            best_slope=torch.zeros_like(start),
            least=endless,
            gains=torch.zeros_like(endless),
            least_checked=endless,
            halved=torch.zeros_like(endless, dtype=torch.bool),
        )

    def select(self, which: Tensor) -> _Path:
        """Keep some of the images only (flags)."""
        return _Path(**{field.name: getattr(self, field.name)[which] for field in fields(self)})

    def judged(self, loss: PerImage, slope: Tensor) -> _Path:
        """Take in the loss and its slope at the point."""
        better = loss < self.least
        wide = better.view(-1, 1, 1, 1)
        return replace(
            self,
            loss=loss,
            slope=slope,
            best=torch.where(wide, self.point, self.best),
            best_slope=torch.where(wide, slope, self.best_slope),
            least=torch.where(better, loss, self.least),
            gains=self.gains + (loss < self.loss),
        )

    def checked(self, since: int) -> _Path:
        """Halve the steps that lead nowhere, `since` steps after the last checkpoint, and go back to the best point."""
        stuck = ~self.halved & (self.least >= self.least_checked)
        halve = (self.gains < _ENOUGH_GAINS * since) | stuck
        wide = halve.view(-1, 1, 1, 1)
        return replace(
            self,
            step=torch.where(wide, self.step / 2, self.step),
            point=torch.where(wide, self.best, self.point),
            slope=torch.where(wide, self.best_slope, self.slope),
            loss=torch.where(halve, self.least, self.loss),
            gains=torch.zeros_like(self.gains),
            least_checked=self.least,
            halved=halve,
        )

    def stepped(self, problem: Problem, ball: Ball, momentum: float) -> _Path:
        """Go a step down the slope, and on in the direction of the step before."""
        ahead = self.point - farthest(self.slope, self.step, ball)
        ahead = project(ahead, problem, self.radius, ball)
        moved = self.point + momentum * (ahead - self.point) + (1 - momentum) * (self.point - self.before)
        return replace(self, point=project(moved, problem, self.radius, ball), before=self.point)


def ascend(
    problem: Problem,
    objective: Objective,
    *,
    start: Images,
    radius: PerImage,
    steps: int,
    ball: Ball,
    progress: Callable[[int], None],
) -> tuple[Attempt, Flags]:
    """Make a loss smaller inside a ball, by steps that are halved where they lead nowhere; every point is evaluated.

    Parameters
    ----------
    problem
        The images and their goal.
    objective
        The loss.
    start
        (n,c,h,w) Where to begin, inside the balls.
    radius
        (n,) The balls' radii.
    steps
        How many steps at most.
    ball
        Which norm the balls are of.
    progress
        Called with the number of steps done.

    Returns
    -------
    Attempt
        The point at which each image's goal was reached; where it was not, the point with the smallest loss.
    Tensor
        (n,) Whether the goal was reached.
    """
    ended = start.clone()
    forwards = torch.zeros(len(problem), dtype=torch.int64, device=ended.device)
    backwards = torch.zeros_like(forwards)
    reached = torch.zeros_like(forwards, dtype=torch.bool)
    path = _Path.begun(start, radius)
    safe = torch.zeros_like(path.loss)
    checkpoints = find_checkpoints(steps)
    checked_at = 0
    for number in range(steps + 1):
        here = problem.select(path.place)
        last = number == steps
        with torch.no_grad() if last else nullcontext():
            inputs = path.point.detach().requires_grad_(not last)
            logits = here.logits(inputs)
            loss = objective.select(path.place)(logits)
        forwards[path.place] += 1
        margin = here.goal.margin(logits.detach())
        if number == 0:
            safe = find_safe_margin(margin, logits.detach())
        passed = margin < 0
        ended[path.place[passed]] = path.point[passed]
        reached[path.place[passed]] = True
        # At the boundary itself, rounding would decide: the way goes on, and this point is kept.
        left = margin > -safe[path.place]
        if last or not left.any():
            path = path.judged(loss.detach(), path.slope) if last else path.select(left)
            break
        slope = differentiate(loss[left].sum(), inputs)[left]
        with torch.no_grad():
            path, here = path.select(left), here.select(left)
            backwards[path.place] += 1
            path = path.judged(loss.detach()[left], here.usable(slope))
            if number in checkpoints:
                path = path.checked(number - checked_at)
                checked_at = number
            path = path.stepped(here, ball, _MOMENTUM if number else 1.0)
        progress(number + 1)
    missed = ~reached[path.place]
    ended[path.place[missed]] = path.best[missed]
    return Attempt(ended, forwards, backwards), reached


def find_checkpoints(steps: int) -> list[int]:
    """Return the steps after which it is judged whether steps lead anywhere: sooner and sooner after one another."""
    checkpoints: list[int] = []
    passed, wait = 0, _FIRST_CHECK
    while passed + wait <= 100:
        passed += wait
        checkpoints.append(math.ceil(passed * steps / 100))
        wait = max(wait - _SHORTER, _SHORTEST)
    return sorted(set(checkpoints))
