"""Gradient steps inside a ball: what FGSM, BIM and PGD share. Images that reached their goal leave the batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from whyfooled.attacks._attack import SAFE_MARGIN, Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.errors import bad_parameter, one_of, positive
from whyfooled.types import Images, Progress

Ball = Literal["linf", "l2"]
BALLS: tuple[Ball, ...] = ("linf", "l2")


def check_epsilon(epsilon: float, ball: Ball = "linf", argument: str = "epsilon") -> None:
    """Raise `ParameterError` for a radius that no image with values in [0, 1] can have."""
    one_of("ball", ball, BALLS)
    if ball == "l2":
        positive(argument, epsilon)
    elif not 0 < epsilon <= 1:
        fix = f"Did you mean {epsilon:g}/255?" if 1 < epsilon <= 255 else ""
        raise bad_parameter(
            argument, "must be above 0 and at most 1 (pixel values are scaled to [0, 1])", f"{epsilon:g}", fix
        )


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
    for step in range(steps):
        here = problem.select(active)
        inputs = ended[active].requires_grad_()
        logits = here.logits(inputs)
        forwards[active] += 1
        left = ~here.reached(logits.detach(), SAFE_MARGIN)
        if not left.any():
            break
        slope = torch.autograd.grad(here.goal.loss(logits)[left].sum(), inputs)[0][left]
        active, here = active[left], here.select(left)
        backwards[active] += 1
        moved = inputs.detach()[left] - step_size * _direction(here.usable(slope), ball)
        ended[active] = project(moved, here, epsilon, ball)
        progress(step + 1, steps, "attack")
    return Attempt(ended, forwards, backwards)


def project(moved: Tensor, problem: Problem, epsilon: float | Tensor, ball: Ball) -> Tensor:
    """Bring images back into the ball around the originals, and into their bounds; `epsilon` may be (n,1,1,1)."""
    delta = moved - problem.images
    epsilon = torch.as_tensor(epsilon).to(delta)
    if ball == "linf":
        return problem.clamp(problem.images + delta.clamp(-epsilon, epsilon))
    # The bounds are a box that holds the centre, so clamping to it afterwards only makes the perturbation shorter.
    return problem.clamp(problem.images + delta * (epsilon / length(delta).clamp_min(epsilon)))


def _direction(slope: Tensor, ball: Ball) -> Tensor:
    if ball == "linf":
        return slope.sign()
    return slope / length(slope).clamp_min(torch.finfo(slope.dtype).tiny)


def length(delta: Tensor) -> Tensor:
    """Return the Euclidean length of each perturbation, (n,1,1,1)."""
    return delta.flatten(1).square().sum(1).sqrt().view(-1, 1, 1, 1)
