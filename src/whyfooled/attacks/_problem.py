"""What an attack has to solve: a classifier, images, a goal, and where each value may go. All input is checked here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from whyfooled.classifier import Classifier, check_classes
from whyfooled.classifier.checks import SLACK, check_attempted, check_classifier, check_images, name_images
from whyfooled.classifier.dependence import check_dependence, check_recording, differentiate
from whyfooled.classifier.goals import Goal, Switched, Targeted, Untargeted
from whyfooled.errors import MethodError, ModelError, ParameterError, bad_parameter
from whyfooled.types import Flags, Images, Logits, PerImage

Box = tuple[float, float]
Mask = Tensor


@final
@dataclass(frozen=True, eq=False)
class Problem:
    """What an attack has to solve, for a batch of images or for some of it.

    Parameters
    ----------
    classifier
        The classifier to fool.
    images
        (n,c,h,w) The clean images, on the classifier's device.
    goal
        What is to be reached, for each image, by the logits that `logits` gives.
    low, high
        (n,c,h,w) or (n,1,1,1) The least and the largest that each value may become. Where the mask forbids a change,
        both are the image's own value, so that `clamp` brings exactly that back.
    numbers
        (n,) Each image's place in the batch that the user gave, for messages.
    switch
        What is to be reached by a model that gives several labels. An attack is then shown a model with one answer,
        and a class to lead to: that all labels are as wanted.
    quick
        A copy of the classifier's module that `logits` goes through while an attack searches; its own if None.
    """

    classifier: Classifier
    images: Images
    goal: Goal
    low: Tensor
    high: Tensor
    numbers: Tensor
    switch: Switched | None = None
    quick: nn.Module | None = None

    @property
    def asked(self) -> Goal:
        """The goal as it was given, of the classifier's own logits."""
        return self.goal if self.switch is None else self.switch

    @classmethod
    def of(
        cls, classifier: Classifier, images: Tensor, goal: Goal, mask: Mask | None = None, box: Box = (0.0, 1.0)
    ) -> Problem:
        """Check everything that a user gives, the images' shape included, and bring it to the classifier's device.

        Raises
        ------
        ParameterError
            If the goal has another length than the batch, or the mask or the box cannot be used.
        ImageError
            If the images are not a batch, not finite, or have values outside the box.
        """
        check_classifier(classifier, several_labels=True)
        _check_kind(classifier, goal)
        low, high = _check_box(box)
        check_images(images, low, high)
        if len(goal.classes) != len(images):
            raise ParameterError(
                f"`goal` must have a class for each of the {len(images)} images; got {len(goal.classes)}."
            )
        # Without a graph, and out of torch.inference_mode: what an attack makes of them is to be differentiated.
        images = images.detach().to(classifier.device)
        images = images.clone() if images.is_inference() else images
        lows, highs = images.new_full((len(images), 1, 1, 1), low), images.new_full((len(images), 1, 1, 1), high)
        if mask is not None:
            free = _check_mask(mask, images)
            lows, highs = torch.where(free, lows, images), torch.where(free, highs, images)
        numbers = torch.arange(len(images), device=images.device)
        goal = goal.to(images.device)
        if isinstance(goal, Switched):
            posed = Targeted(torch.full_like(goal.labels, goal.wanted.shape[1]))
            return cls(classifier, images, posed, lows, highs, numbers, goal)
        return cls(classifier, images, goal, lows, highs, numbers)

    def __len__(self) -> int:
        return len(self.images)

    def select(self, which: Tensor) -> Problem:
        """Keep some of the images only (an index or a mask over the batch)."""
        return replace(
            self,
            images=self.images[which],
            goal=self.goal.select(which),
            low=self.low[which],
            high=self.high[which],
            numbers=self.numbers[which],
            switch=None if self.switch is None else self.switch.select(which),
        )

    def within(self, free: Tensor) -> Problem:
        """Allow changes only where `free` (n,1,h,w) is true as well."""
        low, high = torch.where(free, self.low, self.images), torch.where(free, self.high, self.images)
        return replace(self, low=low, high=high)

    def count_free(self) -> PerImage:
        """Return (n,) how many values may change; at least 1."""
        free = (self.high > self.low).expand_as(self.images)
        return free.flatten(1).sum(1).clamp_min(1).to(self.images.dtype)

    @property
    def restricted(self) -> bool:
        """Whether there is a mask, or a box smaller than [0, 1]."""
        return bool((self.low > 0).any() or (self.high < 1).any())

    def check(self, attempted: Tensor) -> None:
        """Raise unless images that an attack made have the shape, the box and, outside the mask, the very pixels."""
        check_attempted(self.images, attempted)
        kept = (attempted == self.images) | (self.high > self.low)
        inside = (attempted >= self.low - SLACK) & (attempted <= self.high + SLACK)
        if not (kept & inside).all():
            raise MethodError("The attack must keep its box, and leave the pixels outside its mask as they are.")

    def clamp(self, images: Tensor) -> Tensor:
        """Bring images to where they may be: into the box, and to the clean image's very values outside the mask."""
        return images.clamp(self.low, self.high)

    def movable(self, images: Tensor, direction: Tensor) -> Tensor:
        """Tell (n,c,h,w) which values are not at the bound that they would move against."""
        return ((images > self.low) | (direction > 0)) & ((images < self.high) | (direction < 0))

    def logits(self, images: Tensor) -> Logits:
        """Run the classifier, with a graph to the images if they require one; of several labels, pose the question."""
        differentiable = images.requires_grad and torch.is_grad_enabled()
        if differentiable:
            check_recording(self.classifier.module)
        logits: Tensor = self.classifier(images) if self.quick is None else self.classifier(images, self.quick)
        if differentiable:
            check_dependence(logits, images)
        self._check_finite(logits, "logits", "Check its weights and its normalisation.")
        return logits if self.switch is None else self.switch.pose(logits)

    @torch.no_grad()
    def reached(self, images: Images) -> Flags:
        """Tell (n,) which images reach their goal, each by itself, so that none depends on its company."""
        alone = (self.select(torch.tensor([number], device=images.device)) for number in range(len(self)))
        return torch.cat([one.goal.reached(one.logits(image[None])) for one, image in zip(alone, images, strict=True)])

    def gradient(self, loss: PerImage, inputs: Tensor) -> Tensor:
        """Differentiate a loss that is one number for each image; 0 where no change is allowed."""
        return self.usable(differentiate(loss.sum(), inputs))

    def usable(self, slope: Tensor) -> Tensor:
        """Check a gradient, and make it 0 where no change is allowed."""
        self._check_finite(slope, "gradients", "An operation in it has no derivative there, such as the root of 0.")
        return slope * (self.high > self.low)

    def _check_finite(self, values: Tensor, what: str, fix: str) -> None:
        if torch.isfinite(values).all():
            return
        bad = self.numbers[(~torch.isfinite(values)).flatten(1).any(1)].tolist()
        raise ModelError(f"The model must have finite {what}; they are NaN or infinite for {name_images(bad)}. {fix}")


def check_goal(goal: Goal, clean_logits: Logits) -> None:
    """Raise `ParameterError` for classes that the model does not have, or a target that is the class already given."""
    check_classes(goal.classes, clean_logits)
    if isinstance(goal, Switched) and goal.wanted.shape != clean_logits.shape:
        rule = f"must say of each of the {clean_logits.shape[1]} labels whether it is to be on"
        raise bad_parameter("goal", rule, f"a row of {goal.wanted.shape[1]}")
    if isinstance(goal, Targeted) and goal.reached(clean_logits).any():
        bad = goal.reached(clean_logits).nonzero()[:, 0].tolist()
        raise bad_parameter(
            "goal",
            "must aim at another class than the one that the classifier gives the clean image already",
            f"that class for {name_images(bad)}",
            "Choose another target, or leave these images out.",
        )


def _check_kind(classifier: Classifier, goal: object) -> None:
    """Raise `ParameterError` for what is no goal, and for one of another kind of model."""
    if not isinstance(goal, (Untargeted, Targeted, Switched)):
        rule = "must be Untargeted(labels), Targeted(classes) or Switched.of(logits, labels)"
        raise bad_parameter("goal", rule, type(goal).__name__)
    if classifier.several_labels and not isinstance(goal, Switched):
        rule = "must be to switch a label of a model that gives several at once"
        fix = (
            "Give Switched.of(classifier.logits(images), labels), or attack classifier.ask('label'), with two classes."
        )
        raise bad_parameter("goal", rule, type(goal).__name__, fix)
    if isinstance(goal, Switched) and not classifier.several_labels:
        fix = "If its labels are on or off by themselves: Classifier(model, several_labels=True)."
        raise bad_parameter("goal", "must be Untargeted or Targeted for a model with one answer", "Switched", fix)


def _check_box(box: Box) -> Box:
    numbers = isinstance(box, tuple) and len(box) == 2 and all(isinstance(value, (int, float)) for value in box)
    low, high = box if numbers else (1.0, 0.0)
    if not 0 <= low < high <= 1:
        raise bad_parameter("box", "must be two values (low, high) with 0 <= low < high <= 1", box)
    return low, high


def _check_mask(mask: Tensor, images: Tensor) -> Tensor:
    """Return the mask as flags (n,1,h,w)."""
    if not isinstance(mask, Tensor):
        raise bad_parameter("mask", "must be a tensor", type(mask).__name__)
    n, _, h, w = images.shape
    if tuple(mask.shape) not in {(h, w), (n, 1, h, w)}:
        rule = f"must have the shape {(h, w)}, or {(n, 1, h, w)} for a mask of its own for each image"
        raise bad_parameter("mask", rule, tuple(mask.shape))
    if not ((mask == 0) | (mask == 1)).all():
        raise bad_parameter(
            "mask", "must be true or 1 where the attack may act, and false or 0 elsewhere", "other values"
        )
    free = mask.to(images.device).bool().expand(n, 1, h, w)
    empty = (~free.flatten(1).any(1)).nonzero()[:, 0].tolist()
    if empty:
        raise bad_parameter("mask", "must allow a pixel of each image to change", f"none for {name_images(empty)}")
    return free
