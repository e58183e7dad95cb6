"""FGSM and BIM: one step, or several smaller ones, along the sign of the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._steps import step_in_ball
from whyfooled.errors import at_least
from whyfooled.registry import Card
from whyfooled.tensors.balls import Ball, check_epsilon
from whyfooled.types import Progress, silent


@final
@dataclass(frozen=True)
class FGSM(Attack):
    """Fast gradient sign method: ``x − ε · sign(∇ loss)``, clamped to [0, 1] (Goodfellow et al. 2015).

    In an ℓ2 ball the fast gradient method, ``x − ε · ∇ loss / ‖∇ loss‖₂`` (Dong et al. 2018, arXiv 1710.06081, eq. 2).

    Parameters
    ----------
    epsilon
        Length of the step, for values in [0, 1]: the largest change of a pixel (``"linf"``), or the Euclidean length of
        the change (``"l2"``).
    ball
        ``"linf"`` or ``"l2"``.
    """

    epsilon: float = 4 / 255
    ball: Ball = "linf"

    card: ClassVar[Card] = Card(
        name="fgsm",
        title="FGSM",
        summary="One step of size epsilon along the sign of the loss's gradient, or, in l2, along the gradient.",
        source="Goodfellow, Shlens, Szegedy 2015, arXiv 1412.6572",
        cost="1 forward, 1 backward",
    )

    @property
    def takes_many_passes(self) -> bool:
        """Whether an image takes so many passes that a quicker copy of the model is worth its making: one is not."""
        return False

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon, self.ball)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        return step_in_ball(
            problem,
            start=problem.images,
            epsilon=self.epsilon,
            step_size=self.epsilon,
            steps=1,
            ball=self.ball,
            progress=progress,
        )


@final
@dataclass(frozen=True)
class BIM(Attack):
    """Basic iterative method (BIM, IFGSM): small FGSM steps, kept in a ball (Kurakin et al. 2017).

    Parameters
    ----------
    epsilon
        Radius of the ball, for values in [0, 1]: the largest change of a pixel (``"linf"``), or the Euclidean length
        of the change (``"l2"``).
    step_size
        Length of a step; a quarter of `epsilon` if None.
    steps
        How many steps at most. An image is done when it reaches its goal.
    ball
        ``"linf"`` or ``"l2"``.
    """

    epsilon: float = 4 / 255
    step_size: float | None = None
    steps: int = 20
    ball: Ball = "linf"

    card: ClassVar[Card] = Card(
        name="bim",
        title="BIM",
        summary="Several smaller FGSM steps from the image, kept within epsilon of it, in l-infinity or l2.",
        source="Kurakin, Goodfellow, Bengio 2017, arXiv 1607.02533, sec. 2.2",
        cost="at most `steps` forwards and backwards; less for an image that is fooled sooner",
    )

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon, self.ball)
        at_least("steps", self.steps, 1)
        if self.step_size is not None:
            check_epsilon(self.step_size, self.ball, "step_size")

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        return step_in_ball(
            problem,
            start=problem.images,
            epsilon=self.epsilon,
            step_size=self.epsilon / 4 if self.step_size is None else self.step_size,
            steps=self.steps,
            ball=self.ball,
            progress=progress,
        )
