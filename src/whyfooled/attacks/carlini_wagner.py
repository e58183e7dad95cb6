"""Carlini & Wagner's attack for the smallest ℓ2 perturbation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks._attack import SAFE_MARGIN, Attack, Attempt, evaluate, gradient
from whyfooled.attacks._search import Search
from whyfooled.classifier import Classifier
from whyfooled.errors import at_least, positive
from whyfooled.goals import Goal
from whyfooled.registry import Card
from whyfooled.types import Images, Progress, silent

_Report = Callable[[int], None]

_STALLED = 1e-4
_CHECKS_A_ROUND = 6


@final
@dataclass(frozen=True)
class CarliniWagner(Attack):
    """The smallest ℓ2 perturbation that reaches the goal (Carlini & Wagner 2017, sec. V-A).

    Minimises ``‖δ‖₂² + c · max(margin + confidence, 0)`` by Adam, for a constant `c` that is bisected for each image.

    Differs from the paper: [ours] the box is kept by projection (the paper's sec. V-B names it beside the change of
    variables, whose gradient vanishes for pixels at exactly 0 or 1); the learning rate falls to 0 within each round;
    each round starts from the closest example so far, or where the last one ended; the first constant is 0.1; an image
    leaves a round when its objective stalls.

    Parameters
    ----------
    steps
        Most steps in a round, that is, for one value of the constant.
    rounds
        How many values of the constant are tried for each image.
    learning_rate
        Adam's, at the start of a round, for values in [0, 1].
    initial_constant
        The first constant `c`.
    confidence
        By how many logits the goal must be passed, κ in the paper; at least 0.001, so that rounding cannot undo it.
    """

    steps: int = 60
    rounds: int = 5
    learning_rate: float = 0.005
    initial_constant: float = 0.1
    confidence: float = 0.0

    card: ClassVar[Card] = Card(
        name="cw",
        title="Carlini-Wagner",
        summary="The smallest l2 perturbation that reaches the goal, its weight bisected for each image.",
        source="Carlini & Wagner 2017, arXiv 1608.04644, sec. V-A",
        cost="at most `steps` x `rounds` forwards and backwards; less for an image whose search stalls",
    )

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        at_least("rounds", self.rounds, 1)
        positive("learning_rate", self.learning_rate)
        positive("initial_constant", self.initial_constant)
        at_least("confidence", self.confidence, 0)

    def attempt(self, classifier: Classifier, images: Images, goal: Goal, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        search = Search.begin(images, self.initial_constant)
        spent = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        total = self.rounds * self.steps
        for number in range(self.rounds):

            def report(step: int, before: int = number * self.steps) -> None:
                progress(before + step, total, "attack")

            spent += self._round(classifier, images, goal, search, report)
        progress(total, total, "attack")
        return Attempt(search.best, spent, spent.clone())

    def _round(self, classifier: Classifier, images: Tensor, goal: Goal, search: Search, report: _Report) -> Tensor:
        """Minimise for the constants as they are, and set the next ones; return the evaluations spent on each image."""
        evaluations = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        succeeded = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        previous = torch.full_like(search.distance, float("inf"))
        passed = max(self.confidence, SAFE_MARGIN)
        active = torch.arange(len(images), device=images.device)
        ended = search.start.clone()
        current = ended.clone()
        moments = _Moments.zero(current)
        for step in range(1, self.steps + 1):
            inputs = current.requires_grad_()
            logits = evaluate(classifier, inputs)
            squared = (inputs - images[active]).flatten(1).square().sum(1)
            margin = goal.select(active).margin(logits)
            objective = squared + search.constant[active] * (margin + passed).clamp_min(0)
            slope = gradient(objective, inputs)
            evaluations[active] += 1
            with torch.no_grad():
                reached = margin <= -passed
                search.offer(active, inputs.detach(), squared.sqrt(), reached)
                succeeded[active] |= reached
                rate = self.learning_rate * (1 - (step - 1) / self.steps)
                current = (inputs.detach() - moments.step(slope, step, rate)).clamp(0, 1)
                ended[active] = current
                if step % math.ceil(self.steps / _CHECKS_A_ROUND) == 0:
                    moving = objective < previous[active] * (1 - _STALLED)
                    previous[active] = objective
                    active, current, moments = active[moving], current[moving], moments.select(moving)
                    if not len(active):
                        break
            report(step)
        search.end_round(ended, succeeded)
        return evaluations


@dataclass(frozen=True)
class _Moments:
    """Adam's two moments, for each image on its own (Kingma & Ba 2015)."""

    first: Tensor
    second: Tensor

    @classmethod
    def zero(cls, like: Tensor) -> _Moments:
        return cls(torch.zeros_like(like), torch.zeros_like(like))

    def select(self, images: Tensor) -> _Moments:
        return _Moments(self.first[images], self.second[images])

    def step(self, slope: Tensor, number: int, rate: float) -> Tensor:
        """Take in a gradient, and return what is to be subtracted at the step of this number, from 1."""
        self.first.lerp_(slope, 0.1)
        self.second.lerp_(slope.square(), 0.001)
        first = self.first / (1 - 0.9**number)
        second = self.second / (1 - 0.999**number)
        return rate * first / (second.sqrt() + 1e-8)
