"""Gradient steps inside a ball: what FGSM, BIM and PGD share. Images that reached their goal leave the batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from whyfooled.attacks._attack import Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._yardstick import find_safe_margin
from whyfooled.classifier.dependence import differentiate
from whyfooled.tensors.balls import Ball, inside, length
from whyfooled.types import Images, Progress


def step_in_ball(
    problem: Problem,
    *,
    start: Images,
    epsilon: float,
    step_size: float,
    steps: int,
    ball: Ball,
    progress: Progress,
) -> Attempt:
    """Make the goal's loss smaller by steps of fixed length, back into the ball and the bounds after each.

    An image leaves at the first step after which its goal is reached. The last step's image is not evaluated here.
    """
    ended = start.clone()
    forwards = torch.zeros(len(problem), dtype=torch.int64, device=ended.device)
    backwards = torch.zeros_like(forwards)
    active = torch.arange(len(problem), device=ended.device)
    safe = torch.zeros_like(ended[:, 0, 0, 0])
    for step in range(steps):
        here = problem.select(active)
        inputs = ended[active].requires_grad_()
        logits = here.logits(inputs)
        forwards[active] += 1
        margin = here.goal.margin(logits.detach())
        if step == 0:
            safe = find_safe_margin(margin, logits.detach())
        left = margin > -safe[active]
        if not left.any():
            break
        slope = differentiate(here.goal.loss(logits)[left].sum(), inputs)[left]
        active, here = active[left], here.select(left)
        backwards[active] += 1
        moved = inputs.detach()[left] - step_size * _direction(here.usable(slope), ball)
        ended[active] = project(moved, here, epsilon, ball)
        progress(step + 1, steps, "attack")
    return Attempt(ended, forwards, backwards)


def project(moved: Tensor, problem: Problem, epsilon: float | Tensor, ball: Ball) -> Tensor:
    """Bring images back into the ball around the originals, and into their bounds; `epsilon` may be (n,1,1,1)."""
    # The bounds are a box that holds the centre, so clamping to it afterwards only makes the perturbation shorter.
    return problem.clamp(problem.images + inside(moved - problem.images, epsilon, ball))


def _direction(slope: Tensor, ball: Ball) -> Tensor:
    if ball == "linf":
        return slope.sign()
    return slope / length(slope).clamp_min(torch.finfo(slope.dtype).tiny)


def falling(step: int, steps: int, last: float) -> float:
    """Return what is left of a step's length at a step, from 0: a cosine, from 1 towards `last`."""
    return last + (1 - last) * (1 + math.cos(math.pi * step / steps)) / 2
