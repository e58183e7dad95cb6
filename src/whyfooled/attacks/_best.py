"""The smallest example that a search has found, and how it is brought to the boundary at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whyfooled.attacks._problem import Problem
from whyfooled.attacks._yardstick import Yardstick
from whyfooled.types import Counts, PerImage

Measure = Callable[[Tensor], PerImage]

BISECTIONS = 6
_WINDOW = 1 / 16


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

    def images_or(self, others: Tensor) -> Tensor:
        """Return (n,c,h,w) the examples, and others where there is none."""
        return torch.where(self.found.view(-1, 1, 1, 1), self.images, others)

    def offer(self, index: Tensor, examples: Tensor, size: Tensor, reached: Tensor) -> Tensor:
        """Keep, of some images (`index`), the examples that reach the goal and are smaller than any before.

        Returns which of them (flags over `index`) were kept.
        """
        better = reached & (size < self.size[index])
        self.images[index[better]] = examples[better]
        self.size[index[better]] = size[better]
        return better


@torch.no_grad()
def shorten(problem: Problem, yardstick: Yardstick, best: Best, size: Measure, times: int) -> Counts:
    """Bisect the last sixteenth of the way from each clean image to its example; return (n,) the forward passes.

    Parameters
    ----------
    problem
        The images and their goal.
    yardstick
        What success is judged by.
    best
        The examples, which are replaced by nearer ones on the same ray.
    size
        (n,c,h,w) -> (n,) By what perturbations are compared; it must grow along a ray.
    times
        How many forward passes.
    """
    index = best.found.nonzero()[:, 0]
    forwards = torch.zeros(len(problem), dtype=torch.int64, device=best.images.device)
    if not len(index):
        return forwards
    here, measure = problem.select(index), yardstick.select(index)
    ray = best.images[index] - here.images
    far = torch.ones_like(here.images[:, :1, :1, :1])
    near = far - _WINDOW
    for _ in range(times):
        middle = (near + far) / 2
        examples = here.clamp(here.images + middle * ray)
        reached = measure.missing(here.goal, here.logits(examples)) <= 0
        best.offer(index, examples, size(examples - here.images), reached)
        enough = reached.view(-1, 1, 1, 1)
        near, far = torch.where(enough, near, middle), torch.where(enough, middle, far)
    forwards[index] = times
    return forwards
