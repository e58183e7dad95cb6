"""Running any attack, and not believing it: success is judged by a prediction of our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import pandas as pd
import torch
from torch import Tensor

from whyfooled.attacks._attack import Attack, Attempt
from whyfooled.classifier import Classifier, check_classes
from whyfooled.errors import ImageError, ModelError, ParameterError
from whyfooled.goals import Goal, Untargeted
from whyfooled.passes import count_passes
from whyfooled.types import Classes, Counts, Flags, Images, Logits, PerImage, Progress, silent


@final
@dataclass(frozen=True, eq=False, repr=False)
class AttackResult:
    """Adversarial images, verified.

    Parameters
    ----------
    clean
        (n,c,h,w) The images before.
    adversarial
        (n,c,h,w) The images after; where the attack failed, the clean image unchanged.
    attempted
        (n,c,h,w) What the attack returned, successful or not.
    success
        (n,) Whether the classifier's own prediction on `attempted` reaches the goal.
    clean_logits, logits
        (n,m) The logits of `clean` and of `attempted`.
    forwards, backwards
        (n,) Passes that the attack spent on each image, verification not counted; for an attack of another kind than
        this package's, the mean over the batch, rounded up.
    """

    clean: Images
    adversarial: Images
    attempted: Images
    success: Flags
    clean_logits: Logits
    logits: Logits
    forwards: Counts
    backwards: Counts

    @classmethod
    def from_images(
        cls, classifier: Classifier, clean: Images, adversarial: Images, goal: Goal | None = None
    ) -> AttackResult:
        """Take in adversarial images made elsewhere, and verify them.

        Parameters
        ----------
        classifier
            The classifier they are to fool.
        clean, adversarial
            (n,c,h,w) The images before and after, values in [0, 1].
        goal
            What counts as success; any class other than the one predicted on the clean image if None.
        """
        _check_images(clean, adversarial)
        clean_logits = classifier.logits(clean)
        goal = Untargeted(clean_logits.argmax(1)) if goal is None else goal
        nothing = torch.zeros(len(clean), dtype=torch.int64, device=clean.device)
        return _verified(classifier, clean, clean_logits, goal, Attempt(adversarial, nothing, nothing))

    def __repr__(self) -> str:
        reached, n = int(self.success.sum()), len(self.success)
        median = f", median l2 {float(self.l2[self.success].median()):.4g}" if reached else ""
        return f"AttackResult({reached} of {n} reached their goal{median})"

    @property
    def delta(self) -> Images:
        """(n,c,h,w) What was added: `adversarial` minus `clean`."""
        return self.adversarial - self.clean

    @property
    def predictions(self) -> Classes:
        """(n,) The class predicted on `attempted`."""
        return self.logits.argmax(1)

    @property
    def l0(self) -> Counts:
        """(n,) How many pixels changed, in any channel."""
        return l0(self.delta)

    @property
    def l1(self) -> PerImage:
        """(n,) Sum of the absolute changes."""
        return self.delta.flatten(1).abs().sum(1)

    @property
    def l2(self) -> PerImage:
        """(n,) Euclidean length of the change."""
        return self.delta.flatten(1).square().sum(1).sqrt()

    @property
    def linf(self) -> PerImage:
        """(n,) Largest absolute change of a value."""
        return self.delta.flatten(1).abs().amax(1)

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each image: success, predictions, norms and passes."""
        columns = {
            "success": self.success,
            "clean_prediction": self.clean_logits.argmax(1),
            "prediction": self.predictions,
            "l0": self.l0,
            "l1": self.l1,
            "l2": self.l2,
            "linf": self.linf,
            "forwards": self.forwards,
            "backwards": self.backwards,
        }
        return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})


def l0(delta: Images) -> Counts:
    """Count (n,) the pixels that changed in any channel."""
    return (delta != 0).any(1).flatten(1).sum(1)


def run_attack(
    attack: Callable[[Classifier, Images, Goal], Images],
    classifier: Classifier,
    images: Images,
    goal: Goal,
    *,
    progress: Progress = silent,
) -> AttackResult:
    """Run an attack and verify what it returns.

    Images whose goal is already reached are left alone: they count as successes of norm 0 and cost nothing.

    Parameters
    ----------
    attack
        One of `whyfooled.attacks`, or any callable ``(classifier, images, goal) -> images``.
    classifier
        The classifier to fool.
    images
        (n,c,h,w), values in [0, 1].
    goal
        `Untargeted` or `Targeted`, with a class for each image.
    progress
        Called as the attack proceeds, if it is one of ours.

    Raises
    ------
    ParameterError
        If the goal has another number of classes than there are images, or one out of range.
    ImageError
        If images, given or returned, are not in [0, 1], not finite, or of different shapes.
    """
    _check_images(images, images)
    if len(goal.classes) != len(images):
        raise ParameterError(f"`goal` must have a class for each of the {len(images)} images; got {len(goal.classes)}.")
    clean_logits = classifier.logits(images)
    check_classes(goal.classes, clean_logits)
    todo = (~goal.reached(clean_logits)).nonzero()[:, 0]
    ended = images.clone()
    forwards = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    backwards = torch.zeros_like(forwards)
    if len(todo):
        with torch.enable_grad():
            attempt = _attempt(attack, classifier, images[todo], goal.select(todo), progress)
        _check_images(images[todo], attempt.images)
        ended[todo], forwards[todo], backwards[todo] = attempt.images, attempt.forwards, attempt.backwards
    return _verified(classifier, images, clean_logits, goal, Attempt(ended, forwards, backwards))


def _attempt(
    attack: Callable[[Classifier, Images, Goal], Images],
    classifier: Classifier,
    images: Images,
    goal: Goal,
    progress: Progress,
) -> Attempt:
    if isinstance(attack, Attack):
        return attack.attempt(classifier, images, goal, progress)
    with count_passes(classifier) as passes:
        made = attack(classifier, images, goal)
    if not isinstance(made, Tensor):
        raise ModelError(f"The attack must return a tensor of images; got {type(made).__name__}.")
    each = torch.tensor([-(-passes.forwards // len(images)), -(-passes.backwards // len(images))], device=images.device)
    return Attempt(made.detach(), each[0].repeat(len(images)), each[1].repeat(len(images)))


def _verified(
    classifier: Classifier, clean: Tensor, clean_logits: Tensor, goal: Goal, attempt: Attempt
) -> AttackResult:
    attempted = attempt.images.detach()
    logits = classifier.logits(attempted)
    success = goal.reached(logits)
    return AttackResult(
        clean=clean,
        adversarial=torch.where(success.view(-1, 1, 1, 1), attempted, clean),
        attempted=attempted,
        success=success,
        clean_logits=clean_logits,
        logits=logits,
        forwards=attempt.forwards,
        backwards=attempt.backwards,
    )


def _check_images(clean: Tensor, adversarial: Tensor) -> None:
    if clean.ndim != 4:
        raise ImageError(f"Images must be a batch (n, channels, height, width); got the shape {tuple(clean.shape)}.")
    if clean.shape != adversarial.shape:
        raise ImageError(
            f"Adversarial images must have the shape of the clean ones, {tuple(clean.shape)}; "
            f"got {tuple(adversarial.shape)}."
        )
    for images in (clean, adversarial):
        if not torch.isfinite(images).all() or images.min() < -1e-6 or images.max() > 1 + 1e-6:
            low, high = float(images.min()), float(images.max())
            raise ImageError(f"Images must have finite values in [0, 1]; got values from {low:.4g} to {high:.4g}.")
