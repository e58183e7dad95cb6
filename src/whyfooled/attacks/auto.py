"""The AutoAttack protocol: four attacks one after the other, each on what the ones before it left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._losses import Loss, has_enough_classes, rank_others
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._steps import project
from whyfooled.attacks._yardstick import find_safe_margin
from whyfooled.attacks.apgd import APGD
from whyfooled.attacks.fmn import FMN
from whyfooled.attacks.square import Square
from whyfooled.classifier.goals import Targeted, Untargeted
from whyfooled.errors import at_least, warn
from whyfooled.registry import Card
from whyfooled.tensors.balls import Ball, check_epsilon
from whyfooled.types import Logits, Progress, silent

Stage = Callable[[Problem, Progress], Attempt]


@final
@dataclass(frozen=True)
class AutoAttack(Attack):
    """The standard AutoAttack: APGD-CE, APGD-T, a search for the nearest boundaries, Square (Croce and Hein 2020).

    Each stage attacks the images that are still robust, and an image is robust if all of them fail: robust accuracy is
    the share of all images whose goal is not reached. Progress says, for each stage, how many images are robust when it
    begins.

    Differs from the paper: [ours] the third stage is FMN towards each of the strongest other classes in place of
    FAB-T. Both search for the nearest point of a class, wherever the ball ends, and so do not depend on its radius;
    FMN finds nearer ones in as many passes. What it finds is brought into the ball, and counts if it fools there. For a
    model of fewer than 4 classes, for which targeted DLR is not defined, APGD-T goes down the cross-entropy. To reach a
    class, which the paper does not do, each stage leads to that one alone.

    Parameters
    ----------
    epsilon
        Radius of the ball, for values in [0, 1]: the largest change of a pixel (``"linf"``), or the Euclidean length
        of the change (``"l2"``).
    ball
        ``"linf"`` or ``"l2"``.
    steps
        How many steps APGD takes at most, from one start, towards each class; FMN's two runs have half as many each.
        Only the paper's 100 gives robust accuracies to be compared with published ones.
    targets
        How many classes, those with the largest logits, are aimed at one after the other; 9 in the paper.
    queries
        How many passes Square takes at most; 5000 in the paper.
    seed
        Seed of the starts and the squares; each image has its own, made from this and its content.
    """

    epsilon: float = 4 / 255
    ball: Ball = "linf"
    steps: int = 100
    targets: int = 9
    queries: int = 5000
    seed: int = 0

    card: ClassVar[Card] = Card(
        name="auto",
        title="AutoAttack",
        summary="The standard AutoAttack: APGD-CE, APGD-T, FMN towards each class and Square, on what is still robust.",
        source="Croce, Hein 2020, arXiv 2003.01690, sec. 5",
        cost="for an image that no stage fools, (2 x `targets` + 1) x (`steps` + 4) + `queries` forwards and, without "
        "`queries`, as many backwards, about; much less for one that is fooled",
    )
    stages: ClassVar[tuple[str, ...]] = ("APGD-CE", "APGD-T", "FMN-T", "Square")

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon, self.ball)
        for name, value in (("steps", self.steps), ("targets", self.targets), ("queries", self.queries)):
            at_least(name, value, 1)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        with torch.no_grad():
            clean_logits = problem.logits(problem.images)
        ended = problem.images.clone()
        least = problem.goal.margin(clean_logits)
        forwards = torch.ones(len(problem), dtype=torch.int64, device=ended.device)
        backwards = torch.zeros_like(forwards)
        fooling = torch.zeros_like(forwards)
        active = torch.arange(len(problem), device=ended.device)
        stages = self._make_stages(clean_logits, isinstance(problem.goal, Untargeted))
        for number, (title, stage) in enumerate(zip(self.stages, stages, strict=True), 1):
            here = problem.select(active)

            def progress_of_stage(
                done: int, total: int, doing: str, title: str = title, robust: int = len(here)
            ) -> None:
                progress(done, total, f"{title}, {robust} robust")

            attempt = stage(here, progress_of_stage)
            with torch.no_grad():
                logits = here.logits(attempt.images)
            forwards[active] += attempt.forwards + 1
            backwards[active] += attempt.backwards
            margin = here.goal.margin(logits)
            nearer = margin < least[active]
            ended[active[nearer]], least[active[nearer]] = attempt.images[nearer], margin[nearer]
            fooling[active[margin <= 0]] = number
            active = active[margin > -find_safe_margin(margin, logits)]
            if not len(active):
                break
        return Attempt(ended, forwards, backwards, stage=fooling)

    def _make_stages(self, clean_logits: Logits, any_class: bool) -> list[Stage]:
        """Make the attacks, in the order of `stages`."""
        loss: Loss = "dlr"
        if not has_enough_classes(loss, clean_logits.shape[1], aimed=True):
            loss = "ce"
            warn(
                f"The model has {clean_logits.shape[1]} classes, and DLR with a class to reach needs 4: "
                "APGD-T goes down the cross-entropy instead.",
                stacklevel=4,
            )
        apgd = APGD(epsilon=self.epsilon, steps=self.steps, ball=self.ball, seed=self.seed)
        square = Square(epsilon=self.epsilon, queries=self.queries, ball=self.ball, seed=self.seed)
        return [
            apgd.attempt,
            replace(apgd, loss=loss, targets=self.targets).attempt,
            self._search_boundaries if any_class else self._search_boundary,
            square.attempt,
        ]

    def _search_boundaries(self, problem: Problem, progress: Progress) -> Attempt:
        """Search for the boundary of each of the strongest other classes, until one lies in the ball."""
        with torch.no_grad():
            aims = rank_others(problem.goal, problem.logits(problem.images), self.targets)
        ended = problem.images.clone()
        forwards = torch.ones(len(problem), dtype=torch.int64, device=ended.device)
        backwards = torch.zeros_like(forwards)
        active = torch.arange(len(problem), device=ended.device)
        for number, aim in enumerate(aims.unbind(1)):
            here = problem.select(active)

            def progress_of_aim(done: int, total: int, doing: str, before: int = number) -> None:
                progress(before * total + done, aims.shape[1] * total, doing)

            attempt = self._search_boundary(replace(here, goal=Targeted(aim[active])), progress_of_aim)
            with torch.no_grad():
                logits = here.logits(attempt.images)
            forwards[active] += attempt.forwards + 1
            backwards[active] += attempt.backwards
            margin = here.goal.margin(logits)
            ended[active] = attempt.images
            active = active[margin > -find_safe_margin(margin, logits)]
            if not len(active):
                break
        return Attempt(ended, forwards, backwards)

    def _search_boundary(self, problem: Problem, progress: Progress) -> Attempt:
        """Search for the nearest example, and bring it into the ball."""
        attempt = FMN(steps=max(self.steps // 2, 1), ball=self.ball).attempt(problem, progress)
        return replace(attempt, images=project(attempt.images, problem, self.epsilon, self.ball))
