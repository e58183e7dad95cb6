"""Where attacks inside a ball begin: anywhere in it, each image's point from its own generator."""

from __future__ import annotations

import torch

from whyfooled.attacks._problem import Problem
from whyfooled.attacks._steps import project
from whyfooled.tensors.balls import Ball, length
from whyfooled.tensors.randomness import normal, uniform
from whyfooled.types import Images


def draw_start(problem: Problem, generators: list[torch.Generator], epsilon: float, ball: Ball) -> Images:
    """Draw a point (n,c,h,w) for each image, uniformly from the ball, and bring it to where it may be."""
    images = problem.images
    if ball == "linf":
        return problem.clamp(images + epsilon * (2 * uniform(images, generators) - 1))
    # Uniform in the ball: a uniform direction, and a radius whose power of the dimension is uniform.
    direction = normal(images, generators) * (problem.high > problem.low)
    share = torch.stack([torch.rand((), generator=generator) for generator in generators]).to(images)
    radius = epsilon * share ** (1 / images[0].numel())
    return project(images + direction * (radius.view(-1, 1, 1, 1) / length(direction)), problem, epsilon, "l2")
