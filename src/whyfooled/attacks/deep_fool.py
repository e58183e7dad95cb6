"""DeepFool: to the nearest linearised boundary, over and over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._best import BISECTIONS, Best, shorten
from whyfooled.attacks._losses import rank_others
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._yardstick import Yardstick
from whyfooled.classifier.dependence import differentiate
from whyfooled.classifier.goals import Goal, Targeted
from whyfooled.errors import at_least, one_of
from whyfooled.registry import Card
from whyfooled.tensors.balls import BALLS, Ball, measure, nearest_plane
from whyfooled.types import Logits, PerImage, Progress, silent


@final
@dataclass(frozen=True)
class DeepFool(Attack):
    """Step to the nearest of the linearised boundaries until one is crossed (Moosavi-Dezfooli et al. 2016).

    Each step is the shortest one that makes another class's linearised logit equal to the true class's. For a target,
    the boundary is that between the target and the class that is strongest at the moment.

    Differs from the paper: [ours] values that are at their bound and would leave it are not counted on, and the way
    from the image to the example is bisected at the end.

    Parameters
    ----------
    steps
        How many steps at most. An image is done when it reaches its goal.
    candidates
        How many other classes are looked at: those with the largest logits on the clean image. All, if there are fewer.
    ball
        The norm that is to be small: ``"l2"`` or ``"linf"``.
    overshoot
        By what share the whole perturbation is lengthened, η in the paper.
    """

    steps: int = 50
    candidates: int = 10
    ball: Ball = "l2"
    overshoot: float = 0.02

    card: ClassVar[Card] = Card(
        name="deepfool",
        title="DeepFool",
        summary="A small perturbation in few steps, each to the nearest linearised boundary.",
        source="Moosavi-Dezfooli, Fawzi, Frossard 2016, arXiv 1511.04599, algorithm 2",
        cost="at most `steps` + 1 forwards, `candidates` backwards for each step, and 6 forwards; most need few steps",
    )

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        at_least("candidates", self.candidates, 1)
        one_of("ball", self.ball, BALLS)
        at_least("overshoot", self.overshoot, 0)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        with torch.no_grad():
            clean_logits = problem.logits(problem.images)
        yardstick = Yardstick.of(problem.goal, clean_logits, 0.0, 0.0)
        rivals = self._choose_rivals(problem.goal, clean_logits)
        ended, path = problem.images.clone(), torch.zeros_like(problem.images)
        best = Best.none(problem.images)
        forwards = torch.ones(len(problem), dtype=torch.int64, device=ended.device)
        backwards = torch.zeros_like(forwards)
        active = torch.arange(len(problem), device=ended.device)
        for step in range(self.steps + 1):
            here, scale = problem.select(active), yardstick.select(active)
            inputs = ended[active].requires_grad_()
            logits = here.logits(inputs)
            forwards[active] += 1
            reached = scale.missing(here.goal, logits.detach()) <= 0
            best.offer(active, inputs.detach(), self._measure(inputs.detach() - here.images), reached)
            if step == self.steps or reached.all():
                break
            shortest = self._find_step(here, inputs, logits, rivals[active], scale)
            backwards[active] += rivals.shape[1]
            active, here, shortest = active[~reached], here.select(~reached), shortest[~reached]
            path[active] += shortest
            ended[active] = here.clamp(here.images + (1 + self.overshoot) * path[active])
            progress(step + 1, self.steps, "attack")
        forwards += shorten(problem, yardstick, best, self._measure, BISECTIONS)
        return Attempt(best.images_or(ended), forwards, backwards)

    def _measure(self, delta: Tensor) -> PerImage:
        return measure(delta, self.ball)

    def _choose_rivals(self, goal: Goal, clean_logits: Logits) -> Tensor:
        """Return (n,k) the classes whose boundaries are looked at; the target alone, if there is one."""
        if isinstance(goal, Targeted):
            return goal.classes.long().unsqueeze(1)
        return rank_others(goal, clean_logits, min(self.candidates, clean_logits.shape[1] - 1))

    def _find_step(
        self, problem: Problem, inputs: Tensor, logits: Logits, rivals: Tensor, yardstick: Yardstick
    ) -> Tensor:
        """Return (n,c,h,w) the step to the nearest of the linearised boundaries with the rivals (n,k)."""
        held = logits.gather(1, _find_held(problem.goal, logits.detach()))
        gaps = [yardstick.in_margins(gap) for gap in (held - logits.gather(1, rivals)).unbind(1)]
        slopes = [problem.usable(differentiate(gap.sum(), inputs, retain_graph=True)) for gap in gaps]
        movable = [slope * problem.movable(inputs.detach(), -slope) for slope in slopes]
        return nearest_plane(torch.stack(gaps, 1).detach(), torch.stack(movable, 1), self.ball)


def _find_held(goal: Goal, logits: Logits) -> Tensor:
    """Return (n,1) the class that has to lose: the true one, or the strongest but for the target."""
    classes = goal.classes.long().unsqueeze(1)
    if isinstance(goal, Targeted):
        return logits.scatter(1, classes, float("-inf")).argmax(1, keepdim=True)
    return classes
