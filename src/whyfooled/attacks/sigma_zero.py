"""σ-zero: as few pixels as possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks._attack import Attack, Attempt, Norm
from whyfooled.attacks._best import BISECTIONS, Best
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._steps import falling
from whyfooled.attacks._yardstick import Yardstick
from whyfooled.errors import at_least, positive
from whyfooled.registry import Card
from whyfooled.tensors.adam import Moments
from whyfooled.tensors.balls import l0, measure
from whyfooled.types import Counts, Progress, silent

_LAST_STEP = 0.1
_TINY = 1e-12


@final
@dataclass(frozen=True)
class SigmaZero(Attack):
    """As few changed pixels as possible, by a differentiable count of them (Cinà et al. 2025, algorithm 1).

    Minimises ``max(missing, 0) + Σ_p ‖δ_p‖² / (‖δ_p‖² + σ) / P`` over the P pixels p, where `missing` is what the goal
    lacks in clean margins. After each step, pixels whose change is smaller than τ are given back; τ grows while the
    goal is reached, and falls while it is not.

    Differs from the paper: [ours] pixels are counted, all channels together, in place of single values; margins are in
    clean margins, so that nothing depends on the scale of the logits; at the end, as many of the least changed pixels
    are given back as the goal allows, by bisection.

    Parameters
    ----------
    steps
        How many steps.
    learning_rate
        Adam's, at the start, for values in [0, 1]; falls to a tenth along a cosine.
    sigma
        The σ of the count: smaller values count small changes as whole pixels.
    threshold
        The first τ: changes whose length over the channels is smaller are given back.
    threshold_step
        By how much τ changes in a step of the first length.
    """

    steps: int = 300
    learning_rate: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    threshold_step: float = 0.01

    card: ClassVar[Card] = Card(
        name="sigma-zero",
        title="σ-zero",
        summary="As few changed pixels as reach the goal, however much each of them changes.",
        source="Cinà, Villani, Pintor, Schönherr, Biggio, Pelillo 2025, arXiv 2402.01879, algorithm 1",
        cost="`steps` + 1 forwards, `steps` backwards, and 6 forwards",
    )

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        for name in ("learning_rate", "sigma", "threshold", "threshold_step"):
            positive(name, getattr(self, name))

    @property
    def measured_by(self) -> Norm:
        """The number of pixels, which it keeps small."""
        return "l0"

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        images = problem.images
        with torch.no_grad():
            yardstick = Yardstick.of(problem.goal, problem.logits(images), 0.0, 0.0)
        best = Best.none(images)
        everywhere = torch.arange(len(problem), device=images.device)
        point, moments = images, Moments.zero(images)
        threshold = torch.full_like(best.size, self.threshold)
        for step in range(self.steps):
            inputs = point.detach().requires_grad_()
            missing = yardstick.missing(problem.goal, problem.logits(inputs))
            slope = problem.gradient(missing.clamp_min(0), inputs)
            with torch.no_grad():
                delta = point - images
                reached = missing.detach() <= 0
                best.offer(everywhere, point, l0(delta).to(best.size), reached)
                slope = slope + self._slope_of_count(delta) * (problem.high > problem.low)
                moments = moments.after(slope / measure(slope, "linf").clamp_min(_TINY).view(-1, 1, 1, 1))
                mean, scale = moments.direction(step + 1)
                left = falling(step, self.steps, _LAST_STEP)
                point = problem.clamp(point - self.learning_rate * left * mean / scale)
                change = self.threshold_step * left
                threshold = torch.where(reached, threshold + change, threshold - change).clamp(0, 1)
                kept = _largest_change(point - images) >= threshold.view(-1, 1, 1, 1)
                point = torch.where(kept, point, images)
            progress(step + 1, self.steps, "attack")
        given_back = _give_back(problem, yardstick, best)
        spent = torch.full_like(given_back, self.steps)
        return Attempt(best.images, 1 + spent + given_back, spent)

    def _slope_of_count(self, delta: Tensor) -> Tensor:
        """Return (n,c,h,w) the slope of the share of pixels that are changed, softly counted."""
        squared = delta.square().sum(1, keepdim=True)
        return 2 * self.sigma * delta / (squared + self.sigma).square() / squared[0].numel()


def _largest_change(delta: Tensor) -> Tensor:
    """Return (n,1,h,w) the largest change of a pixel's channels."""
    return delta.abs().amax(1, keepdim=True)


@torch.no_grad()
def _give_back(problem: Problem, yardstick: Yardstick, best: Best) -> Counts:
    """Bisect how many of the least changed pixels of the examples can be as before; return (n,) the forward passes."""
    index = best.found.nonzero()[:, 0]
    forwards = torch.zeros(len(problem), dtype=torch.int64, device=best.images.device)
    if not len(index):
        return forwards
    here, measure_of_margins = problem.select(index), yardstick.select(index)
    examples = best.images[index]
    changes = _largest_change(examples - here.images).flatten(1)
    rank = changes.argsort(dim=1, stable=True).argsort(dim=1).view(len(index), 1, *examples.shape[2:])
    unchanged = (changes == 0).sum(1)
    fewest, most = unchanged, torch.full_like(unchanged, changes.shape[1])
    for _ in range(BISECTIONS):
        middle = (fewest + most) // 2
        shorter = torch.where(rank < middle.view(-1, 1, 1, 1), here.images, examples)
        reached = measure_of_margins.missing(here.goal, here.logits(shorter)) <= 0
        best.offer(index, shorter, l0(shorter - here.images).to(best.size), reached)
        fewest, most = torch.where(reached, middle, fewest), torch.where(reached, most, middle)
    forwards[index] = BISECTIONS
    return forwards
