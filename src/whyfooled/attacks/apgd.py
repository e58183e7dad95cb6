"""APGD: projected gradient descent whose step length finds itself, and its targeted form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from whyfooled.attacks._ascent import ascend
from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._losses import LOSSES, Loss, Objective, rank_others
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._starts import draw_start
from whyfooled.classifier.goals import Untargeted
from whyfooled.errors import at_least, one_of
from whyfooled.registry import Card
from whyfooled.tensors.balls import Ball, check_epsilon
from whyfooled.tensors.randomness import image_generators
from whyfooled.types import Flags, Progress, silent


@final
@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD: steps with momentum in an ℓ∞ or ℓ2 ball, halved where they lead nowhere (Croce and Hein 2020).

    The step is twice the radius at first. At checkpoints, which follow one another sooner and sooner, an image's step
    is halved, and it goes on from its best point, if fewer than three quarters of the steps since the last checkpoint
    made the loss smaller, or if the step was not halved there and the smallest loss is still the same.

    Differs from the paper: [ours] cross-entropy is computed as log-odds, which have its order and the direction of its
    gradient but do not vanish where the classifier is certain; an image is done when it reaches its goal, by more than
    rounding could undo; to reach a class, dlr has in its numerator what is missing to that class.

    Parameters
    ----------
    epsilon
        Radius of the ball, for values in [0, 1]: the largest change of a pixel (``"linf"``), or the Euclidean length
        of the change (``"l2"``).
    steps
        How many steps at most from each start.
    restarts
        How many random starts; only images that have not reached their goal go on to the next.
    ball
        ``"linf"`` or ``"l2"``.
    loss
        ``"ce"`` (cross-entropy) or ``"dlr"`` (difference of logits ratio, for 3 classes or more, or 4 where there is a
        class to reach), which no scale of the logits can change.
    targets
        How many classes, those with the largest logits, are aimed at one after the other where any wrong class will do;
        9 with ``"dlr"`` is the paper's APGD-T. None is aimed at if 0.
    seed
        Seed of the starts; each image has its own, made from this and its content.
    """

    epsilon: float = 4 / 255
    steps: int = 100
    restarts: int = 1
    ball: Ball = "linf"
    loss: Loss = "ce"
    targets: int = 0
    seed: int = 0

    card: ClassVar[Card] = Card(
        name="apgd",
        title="APGD",
        summary="PGD with momentum and a step that is halved where it leads nowhere; aims at several classes in turn.",
        source="Croce, Hein 2020, arXiv 2003.01690, algorithm 1 and sec. 4",
        cost="for each start, and each of `targets`, at most `steps` + 1 forwards and `steps` backwards, and 1 forward "
        "for the targets; less when fooled sooner",
    )

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon, self.ball)
        at_least("steps", self.steps, 1)
        at_least("restarts", self.restarts, 1)
        at_least("targets", self.targets, 0)
        one_of("loss", self.loss, LOSSES)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        forwards = torch.zeros(len(problem), dtype=torch.int64, device=problem.images.device)
        objectives = [Objective(self.loss, problem.goal)]
        if self.targets and isinstance(problem.goal, Untargeted):
            with torch.no_grad():
                aims = rank_others(problem.goal, problem.logits(problem.images), self.targets)
            forwards += 1
            objectives = [Objective(self.loss, problem.goal, aim) for aim in aims.unbind(1)]
        backwards = torch.zeros_like(forwards)
        ended = problem.images.clone()
        generators = image_generators(problem.images, self.seed)
        active = torch.arange(len(problem), device=ended.device)
        runs = [objective for objective in objectives for _ in range(self.restarts)]
        for number, objective in enumerate(runs):

            def progress_of_run(done: int, before: int = number * self.steps) -> None:
                progress(before + done, len(runs) * self.steps, "attack")

            attempt, reached = self._run(
                problem.select(active),
                objective.select(active),
                [generators[i] for i in active.tolist()],
                progress_of_run,
            )
            ended[active] = attempt.images
            forwards[active] += attempt.forwards
            backwards[active] += attempt.backwards
            active = active[~reached]
            if not len(active):
                break
        return Attempt(ended, forwards, backwards)

    def _run(
        self,
        problem: Problem,
        objective: Objective,
        generators: list[torch.Generator],
        progress: Callable[[int], None],
    ) -> tuple[Attempt, Flags]:
        return ascend(
            problem,
            objective,
            start=draw_start(problem, generators, self.epsilon, self.ball),
            radius=torch.full_like(problem.images[:, 0, 0, 0], self.epsilon),
            steps=self.steps,
            ball=self.ball,
            progress=progress,
        )
