"""EAD: the elastic-net attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from torch import Tensor

from whyfooled.attacks._attack import Attack, Attempt, Norm
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._search import Rounds, Start, minimise
from whyfooled.attacks._steps import falling
from whyfooled.errors import one_of, positive
from whyfooled.registry import Card
from whyfooled.tensors.adam import Moments
from whyfooled.tensors.balls import squared_length
from whyfooled.types import PerImage, Progress, silent

Decision = Literal["en", "l1"]


@final
@dataclass(frozen=True)
class EAD(Attack):
    """Elastic-net attack: a sparse perturbation that reaches the goal (Chen et al. 2018, sec. 3).

    Minimises ``β‖δ‖₁ + ‖δ‖₂² + c · max(margin + confidence, 0)``, for a constant `c` of each image's own.

    Differs from the paper: [ours] the shrinkage steps are preconditioned as Adam's are, each value's threshold with its
    step, so that what is minimised is the objective above (the paper's threshold does not fall with the step); without
    FISTA's momentum, the iterate that the gradient is taken at is the one that is judged, at one forward pass. The
    constant, the fall of the steps and the rounds are those of `CarliniWagner`, so that nothing depends on the scale of
    the logits, and the way from the image to the example is bisected at the end.

    Parameters
    ----------
    beta
        The weight β of the ℓ1 norm in the objective. The paper's 0.01 is a threshold at a step of 0.01, a weight of 1.
        For the smallest ℓ1 norm alone take 1 or more, and ``decision="l1"``.
    decision
        Which of the examples found is the best: ``"en"``, the smallest ``β‖δ‖₁ + ‖δ‖₂²``, or ``"l1"``, the smallest
        ``‖δ‖₁``.
    steps
        Steps in a round, that is, for one value of the constant.
    rounds
        How many values of the constant are tried for each image.
    learning_rate
        Adam's, at the start of the first round, in units of the mean change of a value, ``‖δ‖₂ / √D``, where D counts
        the values that may change; above 1, because few do.
    confidence
        By how many logits the goal must be passed, κ in the paper; at least a thousandth of the clean image's margin,
        so that rounding cannot undo it.
    confidence_share
        The same as a share of the clean image's margin; the larger of both counts.
    """

    beta: float = 0.1
    decision: Decision = "en"
    steps: int = 100
    rounds: int = 3
    learning_rate: float = 16.0
    confidence: float = 0.0
    confidence_share: float = 0.0

    card: ClassVar[Card] = Card(
        name="ead",
        title="EAD",
        summary="A sparse perturbation that reaches the goal: l1 and squared l2 norm traded off against it.",
        source="Chen, Sharma, Zhang, Yi, Hsieh 2018, arXiv 1709.04114, sec. 3",
        cost="`steps` x `rounds` + 1 forwards and backwards, and 6 forwards",
    )

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        one_of("decision", self.decision, ("en", "l1"))
        positive("learning_rate", self.learning_rate)
        _ = self._settings  # made once here, so that it checks its values

    @property
    def _settings(self) -> Rounds:
        return Rounds(self.rounds, self.steps, self.confidence, self.confidence_share)

    @property
    def measured_by(self) -> Norm:
        """The ℓ1 norm, which its elastic net keeps small."""
        return "l1"

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""

        def begin(start: Start) -> _Descent:
            return _Descent(self, start, start.point, Moments.zero(start.point))

        def elastic_net(delta: Tensor) -> PerImage:
            return self.beta * _l1(delta) + squared_length(delta)

        def growth(delta: Tensor) -> PerImage:
            return self.beta * _l1(delta) + 2 * squared_length(delta)

        size = elastic_net if self.decision == "en" else _l1
        return minimise(problem, self._settings, begin=begin, growth=growth, size=size, progress=progress)


def _l1(delta: Tensor) -> PerImage:
    return delta.flatten(1).abs().sum(1)


@dataclass(frozen=True)
class _Descent:
    attack: EAD
    start: Start
    point: Tensor
    moments: Moments

    def advance(self, slope: Tensor, number: int) -> _Descent:
        problem, reach = self.start.problem, self.start.reach
        delta = self.point - problem.images
        # In units of the reach, so that Adam's own constant is as small for every image.
        moments = self.moments.after((slope + 2 * delta) / reach)
        mean, scale = moments.direction(number)
        step = self.attack.learning_rate * reach * falling(number - 1, self.attack.steps, 0.0) / scale
        moved = delta - step * mean
        # The proximal map of step · β‖·‖₁: every value goes towards 0 by its threshold, and stops there.
        shrunk = moved.sign() * (moved.abs() - step * self.attack.beta / reach).clamp_min(0)
        return _Descent(self.attack, self.start, problem.clamp(problem.images + shrunk), moments)
