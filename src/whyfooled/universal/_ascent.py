"""Stochastic projected ascent: what the methods that follow slopes share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch

from whyfooled.errors import WhyfooledError, at_least, bad_parameter
from whyfooled.types import Image
from whyfooled.universal._fitting import Fitting, Step
from whyfooled.universal._method import UniversalMethod


@final
@dataclass(frozen=True)
class Pace:
    """How an ascent goes: how often over the images, how many at once, how far.

    Parameters
    ----------
    passes
        How often each image is used.
    images_per_step
        Images drawn for a step.
    step_size
        Length of the first step, as a share of the ball's radius; it shrinks linearly to 0.
    momentum
        How much of the past slopes is kept, from 0 to below 1.
    """

    passes: int
    images_per_step: int
    step_size: float
    momentum: float

    def __post_init__(self) -> None:
        at_least("passes", self.passes, 1)
        at_least("images_per_step", self.images_per_step, 1)
        at_least("step_size", self.step_size, 0)
        if not 0 <= self.momentum < 1:
            raise bad_parameter("momentum", "must be at least 0 and below 1", self.momentum)


def ascend(
    method: UniversalMethod,
    fit: Fitting,
    pace: Pace,
    step_at: Callable[[Image], Step],
    flat: Callable[[], WhyfooledError] | None = None,
) -> Image:
    """Follow the slopes of an objective from a random direction, and stay in the method's ball.

    Steps have a fixed length along the mean of past slopes, each at length 1.

    Parameters
    ----------
    step_at
        Makes the step at a perturbation; its sums have the "slope" that is followed, the "pull" that is subtracted
        from it, if there is any, and what goes into the history.
    flat
        Makes what to raise if the first pass over the images meets no slope, whatever the pull; nothing if None. A step
        without slope and pull follows the past ones alone.
    """
    delta = method.largest(fit.start())
    speed, steep = torch.zeros_like(delta), flat is None
    batches = list(fit.minibatches(pace.images_per_step, pace.passes))
    for number, places in enumerate(batches):
        sums = fit.total(step_at(delta), places, f"step {number + 1} of {len(batches)}")
        slope = sums.pop("slope")
        steep = steep or bool(slope.any())
        if flat is not None and not steep and number + 1 == len(batches) // pace.passes:
            raise flat()
        slope = slope - sums.pop("pull", 0)
        length = slope.norm().clamp_min(torch.finfo(slope.dtype).tiny)
        speed = pace.momentum * speed + (slope / length).float()
        rate = pace.step_size * (1 - number / len(batches))
        delta = method.kept_inside(delta + rate * method.largest(speed))
        fit.history.append({name: float(value) / len(places) for name, value in sums.items()})
    return delta
