"""Carlini & Wagner's attack for the smallest ℓ2 perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._search import Rounds, Start, minimise
from whyfooled.attacks._steps import falling
from whyfooled.errors import positive
from whyfooled.registry import Card
from whyfooled.tensors.adam import Moments
from whyfooled.tensors.balls import squared_length
from whyfooled.types import PerImage, Progress, silent


@final
@dataclass(frozen=True)
class CarliniWagner(Attack):
    """The smallest ℓ2 perturbation that reaches the goal (Carlini & Wagner 2017, sec. V-A).

    Minimises ``‖δ‖₂² + c · max(margin + confidence, 0)`` by Adam, for a constant `c` of each image's own.

    Differs from the paper: [ours] nothing depends on the scale of the logits. The constant is not bisected: at a
    minimum on the boundary it is ``2‖δ‖ / ‖g‖``, where g is the margin's gradient, so that the linearised boundary
    gives the first, and the best example each further one, taken twice; a round that did not reach the goal is followed
    by three times its constant. The learning rate is a share of the best perturbation's length, falls to 0 within each
    round, and is half in each further one. The box is kept by projection (the paper's sec. V-B names it beside the
    change of variables, whose gradient vanishes for pixels at exactly 0 or 1); each round starts from the closest
    example so far, or where the last one ended. The first round goes down the softened margin of `FMN`. At the end the
    way from the image to the example is bisected.

    Parameters
    ----------
    steps
        Steps in a round, that is, for one value of the constant.
    rounds
        How many values of the constant are tried for each image.
    learning_rate
        Adam's, at the start of the first round, as a share of the mean change of a value: ``‖δ‖₂ / √D``, where D
        counts the values that may change.
    confidence
        By how many logits the goal must be passed, κ in the paper; at least a thousandth of the clean image's margin,
        so that rounding cannot undo it.
    confidence_share
        The same as a share of the clean image's margin; the larger of both counts.
    """

    steps: int = 45
    rounds: int = 2
    learning_rate: float = 1.0
    confidence: float = 0.0
    confidence_share: float = 0.0

    card: ClassVar[Card] = Card(
        name="cw",
        title="Carlini-Wagner",
        summary="The smallest l2 perturbation that reaches the goal, traded off against it for each image.",
        source="Carlini & Wagner 2017, arXiv 1608.04644, sec. V-A",
        cost="`steps` x `rounds` + 1 forwards and backwards, and 6 forwards",
    )

    def __post_init__(self) -> None:
        positive("learning_rate", self.learning_rate)
        _ = self._settings  # made once here, so that it checks its values

    @property
    def _settings(self) -> Rounds:
        return Rounds(self.rounds, self.steps, self.confidence, self.confidence_share)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""

        def begin(start: Start) -> _Descent:
            return _Descent(self, start, start.point, Moments.zero(start.point))

        return minimise(problem, self._settings, begin=begin, growth=_growth, size=squared_length, progress=progress)


def _growth(delta: Tensor) -> PerImage:
    return 2 * squared_length(delta)


@dataclass(frozen=True)
class _Descent:
    attack: CarliniWagner
    start: Start
    point: Tensor
    moments: Moments

    def advance(self, slope: Tensor, number: int) -> _Descent:
        problem, reach = self.start.problem, self.start.reach
        # In units of the reach, so that Adam's own constant is as small for every image.
        moments = self.moments.after((slope + 2 * (self.point - problem.images)) / reach)
        mean, scale = moments.direction(number)
        rate = self.attack.learning_rate * reach * falling(number - 1, self.attack.steps, 0.0)
        return _Descent(self.attack, self.start, problem.clamp(self.point - rate * mean / scale), moments)
