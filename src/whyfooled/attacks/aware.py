"""An attack that knows the explanation: it reaches its goal, and the map looks as if there were none."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.attacks._decoys import CLEAN, Decoy, check_decoy, draw_decoy
from whyfooled.attacks._problem import Problem
from whyfooled.attacks._shown import Shown, View, check_views, likeness, show
from whyfooled.attacks._steps import project
from whyfooled.attacks._yardstick import find_safe_margin
from whyfooled.classifier.classifier import strongest_other
from whyfooled.classifier.goals import Targeted
from whyfooled.classifier.passes import count_passes
from whyfooled.errors import at_least, bad_parameter, positive
from whyfooled.registry import Card
from whyfooled.saliency.differentiable import check_differentiable
from whyfooled.saliency.enhanced import Enhanced
from whyfooled.saliency.interpretations import check_beta, differentiate_maps, smoothed
from whyfooled.tensors.balls import Ball, check_epsilon, farthest
from whyfooled.types import Classes, Images, Logits, PerImage, Progress, silent


@final
@dataclass(frozen=True)
class ExplanationAware(Attack):
    """Fools the classifier and its explanation by one perturbation: the map looks like a decoy.

    Makes ``weight · mean over views and methods of (1 − cos(I(x'), decoy)) − min(margin, κ)`` small. ``I`` is the map,
    its absolute values summed over channels, of the class that the classifier now gives the image (the target, or the
    strongest other class, before that); enhanced methods contrast it with the class of the clean image. The margin is
    by how many logits the goal is passed.

    The slope of the cosine goes through a network with smooth activations, as that of a network of ReLUs is nearly 0
    (Dombrowski et al. 2019, arXiv 1906.07983); margin, success and the result are judged on the true network. Steps go
    from the clean image, along the mean of past slopes, each at length 1 (momentum): by its signs in the ℓ∞ ball. They
    shrink linearly to 0. An iterate that does not reach the goal steps towards it alone. The result is the iterate with
    the smallest loss of those that reach the goal; where none does, the one to which least is missing.

    Related: ADV² (Zhang et al. 2020, arXiv 1812.00891), with other losses. The mirror case, where the prediction stays
    and the map changes, is `whyfooled.universal.InterpretationAttack`. The loss, the schedule and the defaults are
    [ours].

    Parameters
    ----------
    epsilon
        Radius of the ball, for values in [0, 1]: the largest change of a pixel (``"linf"``), or the Euclidean length
        of the change (``"l2"``).
    ball
        ``"linf"`` or ``"l2"``.
    methods
        Saliency methods whose maps are to look like the decoy, all at once; each must take ``create_graph``.
    decoy
        What the maps are to look like. ``"clean"``: each method's own map of the clean image and its own class,
        contrasted with the strongest other. ``"square"``: a square in the upper left corner. Else the path of a
        picture, as salient as it is bright, or a map, (h,w) or (n,h,w), none negative.
    views
        What is explained: ``"identity"``, the image itself; ``"median"``, its median of 2 × 2 pixels; or any function
        from images to images of the same shape that can be differentiated and takes them one by one.
    weight
        How much the maps count. At 0 they do not, are not computed, and this is a plain attack.
    margin
        By how many logits the goal is to be passed, κ; infinite for as many as there are.
    beta
        Sharpness of the smooth activations, see `whyfooled.saliency.smooth_activations`; None for the true ones.
    steps
        How many steps.
    step_size
        Length of the first step, as a share of `epsilon`.
    momentum
        How much of the past slopes is kept, from 0 to below 1.
    """

    epsilon: float = 8 / 255
    ball: Ball = "linf"
    methods: tuple[Any, ...] = field(default_factory=lambda: (Enhanced(),))
    decoy: Decoy = CLEAN
    views: tuple[View, ...] = ("identity",)
    weight: float = 1.0
    margin: float = 2.0
    beta: float | None = 30.0
    steps: int = 40
    step_size: float = 0.3
    momentum: float = 0.8

    switches_labels = False

    card: ClassVar[Card] = Card(
        name="aware",
        title="Explanation-aware attack",
        summary="Fools the classifier and keeps its saliency maps like a decoy, such as the clean image's own.",
        source="after Zhang et al. 2020, arXiv 1812.00891; Dombrowski et al. 2019, arXiv 1906.07983",
        cost="for each of `steps` 1 forward, 1 backward and, for each of `views`, the maps twice, once differentiated",
    )

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon, self.ball)
        methods = self.methods if isinstance(self.methods, tuple) else ()
        if not methods or any(isinstance(method, str) for method in methods):
            rule = "must be a tuple of saliency methods, such as (GradCAM(),), not of their names"
            raise bad_parameter("methods", rule, repr(self.methods))
        for method in self.methods:
            check_differentiable(method)
        check_decoy(self.decoy)
        check_views(self.views)
        at_least("weight", self.weight, 0)
        if not self.margin > 0:
            raise bad_parameter("margin", "must be above 0", self.margin)
        check_beta(self.beta)
        at_least("steps", self.steps, 1)
        positive("step_size", self.step_size)
        if not 0 <= self.momentum < 1:
            raise bad_parameter("momentum", "must be at least 0 and below 1", self.momentum)

    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images and count the passes spent on each."""
        return ascend_aware(self, problem, torch.full_like(problem.images[:, 0, 0, 0], self.margin), progress)


@final
@dataclass(frozen=True, eq=False)
class Pursuit:
    """What an attack that knows the explanation makes small, for some images.

    Parameters
    ----------
    attack
        Its parameters.
    problem
        The images, and their goal.
    true
        (n,) The class of each clean image.
    margins
        (n,) By how many logits the goal is to be passed.
    decoys
        What the maps are to look like; None where they do not count.
    """

    attack: ExplanationAware
    problem: Problem
    true: Classes
    margins: PerImage
    decoys: Shown | None

    @classmethod
    def of(cls, attack: ExplanationAware, problem: Problem, margins: PerImage) -> tuple[Pursuit, Logits]:
        """Make the one of all images; and return the clean images' logits."""
        with torch.no_grad():
            logits = problem.logits(problem.images)
        # What is to be attacked is given its true class, if the goal has one.
        true = logits.argmax(1)
        decoys = make_decoys(attack, problem, logits) if attack.weight else None
        return cls(attack, problem, true, margins, decoys), logits

    def select(self, which: Tensor) -> Pursuit:
        """Keep some of the images only."""
        decoys = None if self.decoys is None else self.decoys[which]
        return replace(
            self, problem=self.problem.select(which), true=self.true[which], margins=self.margins[which], decoys=decoys
        )

    def find_apart(self, images: Images, logits: Logits, *, create_graph: bool = False) -> PerImage:
        """Return (n,) how unlike the decoys the maps of images with these logits are, from 0 to 1."""
        if self.decoys is None:
            return torch.zeros_like(logits[:, 0])
        attack, now = self.attack, explained_class(self.problem, logits, self.true)
        maps = show(
            attack.methods, attack.views, self.problem.classifier, images, now, self.true, create_graph=create_graph
        )
        return 1 - likeness(maps, self.decoys.to(maps)).mean((1, 2)).to(logits)

    def find_passed(self, logits: Logits) -> PerImage:
        """Return (n,) by how many logits the goal is passed, as far as it counts."""
        return torch.minimum(-self.problem.goal.margin(logits), self.margins)

    def find_slope(self, images: Images, logits: Logits) -> Images:
        """Differentiate the part of the loss that the maps have, at (n,c,h,w) images, through smooth activations."""
        inputs = images.detach().requires_grad_()
        with smoothed(self.attack.beta):
            apart = self.find_apart(inputs, logits, create_graph=True)
        return self.attack.weight * differentiate_maps(apart.sum(), inputs)


def explained_class(problem: Problem, logits: Logits, true: Classes) -> Classes:
    """Return (n,) the class that a map explains: the target, or the strongest class other than the true one, (n,)."""
    goal = problem.goal
    return goal.classes if isinstance(goal, Targeted) else strongest_other(logits, true)


def make_decoys(attack: ExplanationAware, problem: Problem, clean_logits: Logits) -> Shown:
    """Make what the maps of each image are to look like."""
    if isinstance(attack.decoy, str) and attack.decoy == CLEAN:
        true = clean_logits.argmax(1)
        runner_up = strongest_other(clean_logits, true)
        return show(attack.methods, attack.views, problem.classifier, problem.images, true, runner_up).detach()
    return draw_decoy(attack.decoy, problem).expand(-1, len(attack.views), len(attack.methods), -1, -1)


def ascend_aware(attack: ExplanationAware, problem: Problem, margins: PerImage, progress: Progress) -> Attempt:
    """Make the attack's steps, with a margin (n,) to reach for each image."""
    point, speed = problem.images.clone(), torch.zeros_like(problem.images)
    forwards = torch.zeros(len(problem), dtype=torch.int64, device=point.device)
    backwards = torch.zeros_like(forwards)
    with count_passes(problem.classifier) as passes:
        everything, clean_logits = Pursuit.of(attack, problem, margins)
    forwards += passes.forwards // len(problem)
    backwards += passes.backwards // len(problem)
    safe = find_safe_margin(problem.goal.margin(clean_logits), clean_logits)
    best = _Best.none(problem.images)
    active = torch.arange(len(problem), device=point.device)
    for step in range(attack.steps + 1):
        here, inputs = everything.select(active), point[active].requires_grad_()
        with count_passes(problem.classifier) as passes:
            logits = here.problem.logits(inputs)
            passed = here.find_passed(logits)
            apart = here.find_apart(inputs.detach(), logits.detach())
            slope = here.problem.gradient(-passed, inputs) if step < attack.steps else None
            if slope is not None and attack.weight:
                # Before that the maps would hold back, by as much as the logits are small, what comes first.
                reached = (-here.problem.goal.margin(logits.detach()) > safe[active]).view(-1, 1, 1, 1)
                slope = slope + reached * here.problem.usable(here.find_slope(inputs, logits.detach()))
        # All images of a batch take the same passes.
        forwards[active] += passes.forwards // len(active)
        backwards[active] += passes.backwards // len(active)
        loss = attack.weight * apart - passed.detach()
        best.offer(active, inputs.detach(), loss, -here.problem.goal.margin(logits.detach()), safe[active])
        if slope is None:
            break
        speed[active] = attack.momentum * speed[active] + farthest(slope, 1, "l2")
        rate = attack.step_size * (1 - step / attack.steps) * attack.epsilon
        moved = inputs.detach() - rate * farthest(speed[active], 1, attack.ball)
        point[active] = project(moved, here.problem, attack.epsilon, attack.ball)
        if not attack.weight:
            # Nothing is left to do where the goal is passed by enough.
            active = active[passed.detach() < here.margins]
            if not len(active):
                break
        progress(step + 1, attack.steps, "attack")
    return Attempt(best.images, forwards, backwards)


@dataclass(frozen=True, eq=False)
class _Best:
    """The best iterate so far of each image: of those that reach the goal, the one with the smallest loss.

    Where none reaches it, the one that comes nearest. Lives inside one call, which fills it.
    """

    images: Tensor
    reached: Tensor
    rank: Tensor

    @classmethod
    def none(cls, images: Tensor) -> _Best:
        """Begin with nothing found."""
        endless = torch.full_like(images[:, 0, 0, 0], float("inf"))
        return cls(images.clone(), torch.zeros_like(endless, dtype=torch.bool), endless)

    def offer(self, index: Tensor, images: Tensor, loss: PerImage, passed: PerImage, safe: PerImage) -> None:
        """Keep, of some images (`index`), those that are better than any before."""
        reached = passed > safe
        rank = torch.where(reached, loss, -passed)
        held = self.reached[index]
        better = (reached & ~held) | ((reached == held) & (rank < self.rank[index]))
        chosen = index[better]
        self.images[chosen], self.rank[chosen] = images[better], rank[better]
        self.reached[chosen] = reached[better]
