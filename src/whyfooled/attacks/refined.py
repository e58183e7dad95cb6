"""An attack made twice: the second time it may act only where the first one told it to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks._attack import Attack, Attempt, Norm, find_norm
from whyfooled.attacks._problem import Problem
from whyfooled.attacks.adapters import Adapted
from whyfooled.attacks.carlini_wagner import CarliniWagner
from whyfooled.classifier.classifier import strongest_other
from whyfooled.classifier.goals import Targeted
from whyfooled.classifier.passes import count_passes
from whyfooled.errors import bad_parameter, one_of
from whyfooled.perturbation.attack_region import (
    WHERE,
    Region,
    Where,
    cam_region,
    check_keep,
    random_region,
    sensitive_region,
)
from whyfooled.perturbation.regions import Grid
from whyfooled.perturbation.sensitivity import sensitivity
from whyfooled.registry import Card
from whyfooled.saliency.cam import GradCAM
from whyfooled.types import Classes, Counts, Images, Progress, silent


@final
@dataclass(frozen=True)
class Refined(Attack):
    """An attack again, on the pixels alone that explain what it did at first (Xu et al. 2019).

    The attack is run. The true class t0 and the target t, or the class reached, then give the region (`attack_region`),
    and the attack is run inside it, from the clean image. What that ends with is the result, the goal reached or
    not: there is no way back to the perturbation without the restriction. An image stays as it is if the first run
    changed nothing, if it has no region, or if the user's own mask forbids all of the region.

    The paper's text is not public in full; the shares and the order of ties are [ours].

    Parameters
    ----------
    attack
        The attack: one of this package, or any other that keeps a mask.
    where
        What the region is chosen by: ``"cam"``, where class activation maps of t0 and t are largest;
        ``"sensitivity"``, the cells whose perturbation has the largest effect on both logits; ``"random"``, as many
        cells at random, the control.
    keep
        The share of each map's pixels, or of the cells, that is kept; above 0 and at most 1.
    cam
        The saliency method of the maps. Grad-CAM is, on a head that allows CAM, its positive part.
    cell
        Side of a cell, in pixels; the paper's part of the image if None, as for `Grid`.
    seed
        Seed of the random choice; each image has its own, made from this and its content.
    """

    attack: Any = field(default_factory=CarliniWagner)
    where: Where = "cam"
    keep: float = 0.3
    cam: Any = field(default_factory=GradCAM)
    cell: int | None = None
    seed: int = 0

    switches_labels = False

    card: ClassVar[Card] = Card(
        name="refined",
        title="Refined attack",
        summary="An attack run again, on the pixels alone that class activation maps or sensitive cells point at.",
        source="Xu et al. 2019, arXiv 1904.02057",
        cost="`attack` twice, 1 forward, and for the region 2 maps, or 1 forward and 1 for each cell that was changed",
    )

    def __post_init__(self) -> None:
        one_of("where", self.where, WHERE)
        check_keep(self.keep)
        Grid(self.cell)  # made once here, so that it checks its value
        if not isinstance(self.attack, Attack) or isinstance(self.attack, Adapted):
            fix = "Attacks of other libraries do not know where they may act."
            raise bad_parameter(
                "attack",
                "must be an attack of whyfooled, such as BIM()",
                repr(self.attack),
                fix,
            )
        if not callable(self.cam) or not hasattr(self.cam, "card"):
            raise bad_parameter("cam", "must be a saliency method, such as GradCAM()", repr(self.cam))

    @property
    def measured_by(self) -> Norm:
        """That of its attack."""
        return find_norm(self.attack)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each, those of both runs and of the region."""
        if self.where != "cam":
            Grid(self.cell)(problem.images)  # a cell that does not fit is said before the work

        def second_half(done: int, total: int, doing: str) -> None:
            progress(total + done, 2 * total, doing)

        plain = self.attack.attempt(problem, lambda done, total, doing: progress(done, 2 * total, doing))
        images = problem.images.clone()
        forwards, backwards = plain.forwards.clone(), plain.backwards.clone()
        changed = (plain.images != images).flatten(1).any(1).nonzero()[:, 0]
        if len(changed):
            here = problem.select(changed)
            region, *spent = self._choose_region(here, plain.images.detach()[changed])
            forwards[changed] += spent[0]
            backwards[changed] += spent[1]
            within = here.within(region)
            open_ones = (within.high > within.low).flatten(1).any(1).nonzero()[:, 0]
            if len(open_ones):
                again = self.attack.attempt(within.select(open_ones), second_half)
                places = changed[open_ones]
                images[places] = again.images.detach()
                forwards[places] += again.forwards
                backwards[places] += again.backwards
        return Attempt(images, forwards, backwards)

    def _choose_region(self, problem: Problem, attempted: Images) -> tuple[Region, Counts, Counts]:
        """Choose the region; with (n,) the passes that it took, forwards and backwards."""
        pair = (problem.classifier, problem.images, attempted, *_find_classes(problem, attempted))
        if self.where == "cam":
            with count_passes(problem.classifier) as passes:
                region = cam_region(*pair, keep=self.keep, cam=self.cam)
            # A saliency method takes the same for each image.
            n = len(problem)
            every = torch.ones(n, dtype=torch.int64, device=attempted.device)
            return region, every * (1 - (-passes.forwards // n)), every * -(-passes.backwards // n)
        region_effects = sensitivity(*pair, Grid(self.cell))
        touched = region_effects.touched.sum(1)
        if self.where == "sensitivity":
            region = sensitive_region(region_effects, self.keep)
        else:
            region = random_region(region_effects, problem.images, self.keep, self.seed)
        return region, 2 + touched, torch.zeros_like(touched)


def _find_classes(problem: Problem, attempted: Images) -> tuple[Classes, Classes]:
    """Return (n,) the true classes and (n,) the targets; takes one forward pass.

    The true class is the one that the classifier gives the clean image, where the goal does not say it; the target the
    one that it gives the attacked image or, where that is the true class still, the strongest other one.
    """
    named = problem.goal.classes
    aimed = isinstance(problem.goal, Targeted)
    logits: Tensor = problem.classifier.logits(problem.images if aimed else attempted)
    other = strongest_other(logits, named)
    return (other, named) if aimed else (named, other)
