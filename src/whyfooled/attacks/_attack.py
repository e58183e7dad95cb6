"""What an attack is: a frozen dataclass that is called with a classifier, images and a goal, and gives images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from whyfooled.attacks._problem import Box, Mask, Problem, check_goal
from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import FLOAT32
from whyfooled.classifier.constancy import check_constancy
from whyfooled.classifier.folding import quicken
from whyfooled.classifier.goals import Goal
from whyfooled.classifier.workers import are_taken_apart, compute_logits, share_out
from whyfooled.errors import bad_parameter, warn
from whyfooled.registry import Card
from whyfooled.types import Classes, Counts, Images, Logits, Progress, silent

Norm = Literal["l0", "l1", "l2", "linf"]
"""What perturbations are measured by; ℓ0 counts pixels."""


@final
@dataclass(frozen=True, eq=False)
class Attempt:
    """What an attack ended with, whether it reached its goal or not.

    Parameters
    ----------
    images
        (n,c,h,w) The last or best image for each.
    forwards, backwards
        (n,) Passes spent on each image.
    searched_on
        What the passes went through, in a sentence, where that was not simply the model as it is.
    stage
        (n,) The number of the stage that reached the goal, of an attack that has several; 0 where none did.
    """

    images: Images
    forwards: Counts
    backwards: Counts
    searched_on: str = ""
    stage: Counts | None = None

    def put(self, which: Tensor, others: Attempt) -> Attempt:
        """Return these with others in the place of some, whose passes count too."""
        images, forwards, backwards = self.images.clone(), self.forwards.clone(), self.backwards.clone()
        images[which] = others.images.detach()
        forwards[which] += others.forwards
        backwards[which] += others.backwards
        stage = None
        if others.stage is not None:
            stage = torch.zeros_like(forwards) if self.stage is None else self.stage.clone()
            stage[which] = others.stage
        return Attempt(images, forwards, backwards, others.searched_on or self.searched_on, stage)


class Attack(ABC):
    """An attack of this package: its parameters are its fields, `attempt` does the work."""

    card: ClassVar[Card]
    takes_images_apart: ClassVar[bool] = True
    """Whether an image's result is its own, so that images can be attacked one at a time."""
    switches_labels: bool = True
    """Whether it can switch one of several labels, which takes no more of the model than `Problem.logits`."""

    @property
    def measured_by(self) -> Norm:
        """The norm that its perturbations are small in, by which they are to be measured: as a rule its ball's."""
        ball: Norm = getattr(self, "ball", "l2")
        return ball

    @property
    def takes_many_passes(self) -> bool:
        """Whether an image takes so many passes that a quicker copy of the model is worth its making."""
        steps: int = getattr(self, "steps", _MANY)
        return steps >= _MANY

    @final
    @one_thread()
    def __call__(
        self,
        classifier: Classifier,
        images: Images,
        goal: Goal,
        *,
        mask: Mask | None = None,
        box: Box = (0.0, 1.0),
    ) -> Images:
        """Make adversarial images, not verified: `run_attack` does that, and says what they cost.

        Parameters
        ----------
        classifier
            The classifier to fool.
        images
            (n,c,h,w), values in [0, 1].
        goal
            `Untargeted` or `Targeted`, with a class for each image; `Switched` for a model that gives several labels.
        mask
            (h,w) or (n,1,h,w) Where the attack may act; pixels outside stay bit for bit what they were. Everywhere if
            None.
        box
            The least and the largest value that a changed pixel may have.

        Returns
        -------
        Tensor
            (n,c,h,w), values in the box; an image whose goal is reached already comes back as it is.
        """
        problem = Problem.of(classifier, images, goal, mask, box)
        return attempt_open(self, problem)[1].images.to(images.device)

    @abstractmethod
    def attempt(self, problem: Problem, progress: Progress = silent) -> Attempt:
        """Make adversarial images for a problem in which no goal is reached yet, and count the passes on each."""


@runtime_checkable
class ClassKeeper(Protocol):
    """An attack on what is said of an image, not on its class: it keeps that, and tells by itself what it reached."""

    @property
    def measured_by(self) -> Norm:
        """The norm that its perturbations are small in."""
        ...

    def run_keeping_class(self, classifier: Classifier, images: Images, labels: Classes) -> Any:
        """Return an `AttackResult` whose goal is `whyfooled.classifier.goals.Kept`."""
        ...


def attempt_open(attack: Attack, problem: Problem, progress: Progress = silent) -> tuple[Logits, Attempt]:
    """Run an attack on the images whose goal is not reached yet; return the clean images' logits too."""
    clean_logits = compute_logits(problem.classifier, problem.images)
    check_goal(problem.asked, clean_logits)
    _check_switch(attack, problem)
    if problem.classifier.is_half:
        warn(
            "The model is in half precision, so its logits move in steps and its gradients are rough: an attack finds "
            f"larger perturbations than there are, or none. {FLOAT32}",
            stacklevel=3,
        )
    check_constancy(problem.classifier, problem.images, clean_logits, apart=are_taken_apart(problem.images))
    left = (~problem.asked.settled(clean_logits)).nonzero()[:, 0]
    nothing = torch.zeros(len(problem), dtype=torch.int64, device=problem.images.device)
    attempt = Attempt(problem.images.clone(), nothing, nothing)
    if len(left):
        with torch.enable_grad():
            open_ones = problem.select(left)
            made = _attempt_all(attack, open_ones, progress)
        open_ones.check(made.images)
        attempt = attempt.put(left, made)
    return clean_logits, attempt


def _check_switch(attack: Attack, problem: Problem) -> None:
    """Raise `ParameterError` if one of several labels is to be switched by an attack that cannot do so."""
    if problem.switch is not None and not attack.switches_labels:
        rule = f"must be Untargeted(labels) or Targeted(classes) for {_name(attack)}"
        fix = "Attack one label, classifier.ask('label') (--ask label), or take another attack."
        raise bad_parameter("goal", rule, "Switched", fix)


def _name(attack: Attack) -> str:
    card = getattr(attack, "card", None)
    return "an attack of another library" if card is None else card.title


_MANY = 20
"""Steps from which on a copy is made: making sure of it takes as long as about ten of them. [ours]"""


def find_norm(attack: object) -> Norm:
    """Return the norm that an attack's perturbations are measured by; ℓ2 of what is no attack of this package."""
    return attack.measured_by if isinstance(attack, Attack | ClassKeeper) else "l2"


def _attempt_all(attack: Attack, problem: Problem, progress: Progress) -> Attempt:
    """Attack images on a quicker copy of the model where there is one; again on itself, those that fool only the copy.

    Whether an image reaches its goal is for the model to say, as it is.
    """
    if not attack.takes_many_passes:
        return _attempt_each(attack, problem, progress)
    quick = quicken(problem.classifier, problem.images)
    searched = replace(problem, quick=quick.module)
    made = replace(_attempt_each(attack, searched, progress), searched_on=quick.said)
    if quick.module is None:
        return made
    left = (searched.reached(made.images) & ~problem.reached(made.images)).nonzero()[:, 0]
    return made.put(left, _attempt_each(attack, problem.select(left), progress)) if len(left) else made


def _attempt_each(attack: Attack, problem: Problem, progress: Progress) -> Attempt:
    """Attack images that are taken apart one at a time, shared out over workers; others together."""
    count = len(problem)
    if count == 1 or not attack.takes_images_apart or not are_taken_apart(problem.images):
        return attack.attempt(problem, progress)

    def attempt_one(number: int) -> Attempt:
        return attack.attempt(problem.select(torch.tensor([number])))

    attempts = []
    for attempt in share_out(problem.classifier, attempt_one, range(count)):
        attempts.append(attempt)
        progress(len(attempts), count, "attack")
    images, forwards, backwards = (
        torch.cat([getattr(attempt, name) for attempt in attempts]) for name in ("images", "forwards", "backwards")
    )
    stages = [attempt.stage for attempt in attempts if attempt.stage is not None]
    return Attempt(images, forwards, backwards, stage=torch.cat(stages) if len(stages) == count else None)
