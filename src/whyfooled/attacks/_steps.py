"""Gradient steps inside a ball: what FGSM, BIM and PGD share. Images that reached their goal leave the batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from whyfooled.attacks._attack import SAFE_MARGIN, Attempt, evaluate, gradient
from whyfooled.classifier import Classifier
from whyfooled.errors import bad_parameter, one_of, positive
from whyfooled.goals import Goal
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
    classifier: Classifier,
    images: Images,
    goal: Goal,
    *,
    start: Images,
    epsilon: float,
    step_size: float,
    steps: int,
    ball: Ball,
    progress: Progress,
) -> Attempt:
    """Make the goal's loss smaller by steps of fixed length, back into the ball and the box after each.

    An image leaves at the first step after which its goal is reached. The last step's image is not evaluated here.
    """
    ended = start.clone()
    forwards = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    backwards = torch.zeros_like(forwards)
    active = torch.arange(len(images), device=images.device)
    for step in range(steps):
        inputs = ended[active].requires_grad_()
        logits = evaluate(classifier, inputs)
        forwards[active] += 1
        going_on = goal.select(active).margin(logits.detach()) > -SAFE_MARGIN
        if not going_on.any():
            break
        slope = gradient(goal.select(active).loss(logits)[going_on], inputs)[going_on]
        active = active[going_on]
        backwards[active] += 1
        moved = inputs.detach()[going_on] - step_size * _direction(slope, ball)
        ended[active] = project(moved, images[active], epsilon, ball)
        progress(step + 1, steps, "attack")
    return Attempt(ended, forwards, backwards)


def project(moved: Tensor, images: Tensor, epsilon: float, ball: Ball) -> Tensor:
    """Bring images back into the ball around the originals, and into [0, 1]."""
    delta = moved - images
    if ball == "linf":
        return (images + delta.clamp(-epsilon, epsilon)).clamp(0, 1)
    length = _length(delta)
    # The box is convex and holds the centre, so clamping to it afterwards only makes the perturbation shorter.
    return (images + delta * (epsilon / length.clamp_min(epsilon))).clamp(0, 1)


def _direction(slope: Tensor, ball: Ball) -> Tensor:
    if ball == "linf":
        return slope.sign()
    return slope / _length(slope).clamp_min(torch.finfo(slope.dtype).tiny)


def _length(delta: Tensor) -> Tensor:
    return delta.flatten(1).square().sum(1).sqrt().view(-1, 1, 1, 1)
