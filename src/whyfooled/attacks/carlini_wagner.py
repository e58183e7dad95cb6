"""Carlini & Wagner's attack for the smallest ℓ2 perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._search import Rounds, minimise
from whyfooled.errors import positive
from whyfooled.registry import Card
from whyfooled.tensors.adam import Moments
from whyfooled.types import Progress, silent


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
        positive("learning_rate", self.learning_rate)
        _ = self._settings  # made once here, so that it checks its values

    @property
    def _settings(self) -> Rounds:
        return Rounds(self.rounds, self.steps, self.initial_constant, self.confidence)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""

        def begin(problem: Problem, point: Tensor) -> _Descent:
            return _Descent(self, problem, point, Moments.zero(point))

        return minimise(problem, self._settings, begin=begin, penalty=_squared, size=_squared, progress=progress)


def _squared(delta: Tensor) -> Tensor:
    return delta.flatten(1).square().sum(1)


@dataclass(frozen=True)
class _Descent:
    attack: CarliniWagner
    problem: Problem
    point: Tensor
    moments: Moments

    def advance(self, slope: Tensor, number: int) -> _Descent:
        moments = self.moments.after(slope + 2 * (self.point - self.problem.images))
        mean, scale = moments.direction(number)
        rate = self.attack.learning_rate * (1 - (number - 1) / self.attack.steps)
        return _Descent(self.attack, self.problem, self.problem.clamp(self.point - rate * mean / scale), moments)

    def select(self, keep: Tensor) -> _Descent:
        return _Descent(self.attack, self.problem.select(keep), self.point[keep], self.moments.select(keep))
