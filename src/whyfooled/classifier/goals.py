"""What an attack is to reach: any wrong class, one chosen class, one label of several switched, or the class kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from whyfooled.errors import bad_parameter
from whyfooled.types import Classes, Flags, LabelFlags, Logits, PerImage


def check_class_vector(argument: str, classes: object) -> None:
    """Raise `ParameterError` unless classes are a vector of whole numbers."""
    if not isinstance(classes, Tensor):
        fix = "Make a tensor of them: torch.tensor([...])."
        raise bad_parameter(argument, "must be a tensor of class indices", type(classes).__name__, fix)
    if classes.ndim != 1 or classes.dtype not in (torch.int64, torch.int32):
        given = f"shape {tuple(classes.shape)}, {classes.dtype}"
        fix = _advise_conversion(argument) if classes.ndim == 1 else ""
        raise bad_parameter(argument, "must be a vector of class indices, one for each image", given, fix)


_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_whole(argument: str, classes: Tensor) -> None:
    """Raise `ParameterError` unless classes are whole numbers: flags and fractions would be taken for others."""
    if classes.dtype not in _WHOLE:
        raise bad_parameter(
            argument, "must be class indices, whole numbers", classes.dtype, _advise_conversion(argument)
        )


def _advise_conversion(argument: str) -> str:
    return f"If that is what they are, convert them: {argument}.long()."


@final
@dataclass(frozen=True, eq=False)
class Untargeted:
    """Be given any class other than the true one.

    Parameters
    ----------
    labels
        (n,) The true class of each image.
    """

    labels: Classes

    kind: ClassVar[str] = "untargeted"

    def __post_init__(self) -> None:
        check_class_vector("labels", self.labels)

    @property
    def classes(self) -> Classes:
        """(n,) The classes the goal speaks of."""
        return self.labels

    def select(self, images: Tensor) -> Untargeted:
        """Keep the goal for some of the images only (an index or a mask)."""
        return Untargeted(self.labels[images])

    def to(self, device: torch.device) -> Untargeted:
        """Move the goal to a device."""
        return Untargeted(self.labels.to(device))

    def margin(self, logits: Logits) -> PerImage:
        """(n,) How many logits are missing: above 0 before the goal is reached, below 0 after."""
        true, strongest_other = _one_against_rest(logits, self.labels)
        return true - strongest_other

    def loss(self, logits: Logits) -> PerImage:
        """(n,) The loss that an attack makes smaller: the log-odds of the true class.

        Its gradient has the direction of the cross-entropy's, and does not vanish when the classifier is certain.
        """
        return _log_odds(logits, self.labels)

    def reached(self, logits: Logits) -> Flags:
        """(n,) Whether the strongest logit is another class's than the true one's."""
        return logits.argmax(1) != self.labels

    def settled(self, clean_logits: Logits) -> Flags:
        """(n,) Whether there is nothing to do for an image, because it is misclassified already."""
        return self.reached(clean_logits)


@final
@dataclass(frozen=True, eq=False)
class Targeted:
    """Be given one chosen class.

    Parameters
    ----------
    classes
        (n,) The class that each image is to be taken for.
    """

    classes: Classes

    kind: ClassVar[str] = "targeted"

    def __post_init__(self) -> None:
        check_class_vector("classes", self.classes)

    def select(self, images: Tensor) -> Targeted:
        """Keep the goal for some of the images only (an index or a mask)."""
        return Targeted(self.classes[images])

    def to(self, device: torch.device) -> Targeted:
        """Move the goal to a device."""
        return Targeted(self.classes.to(device))

    def margin(self, logits: Logits) -> PerImage:
        """(n,) How many logits are missing: above 0 before the goal is reached, below 0 after."""
        target, strongest_other = _one_against_rest(logits, self.classes)
        return strongest_other - target

    def loss(self, logits: Logits) -> PerImage:
        """(n,) The loss that an attack makes smaller: minus the log-odds of the chosen class."""
        return -_log_odds(logits, self.classes)

    def reached(self, logits: Logits) -> Flags:
        """(n,) Whether the strongest logit is the chosen class's."""
        return logits.argmax(1) == self.classes

    def settled(self, clean_logits: Logits) -> Flags:
        """(n,) Whether there is nothing to do for an image, because it is given the chosen class already."""
        return self.reached(clean_logits)


@final
@dataclass(frozen=True, eq=False)
class Switched:
    """Of several labels, have one the other way round, on or off, and all others as they are.

    Parameters
    ----------
    labels
        (n,) The label to switch, for each image.
    wanted
        (n,m) Which labels are to be on; the others off. `of` makes them from the clean images' logits.
    """

    labels: Classes
    wanted: LabelFlags

    kind: ClassVar[str] = "switched"

    def __post_init__(self) -> None:
        check_class_vector("labels", self.labels)
        if len(self.labels) != len(self.wanted):
            raise bad_parameter("wanted", f"must have a row for each of {len(self.labels)} images", len(self.wanted))

    @classmethod
    def of(cls, logits: Logits, labels: Classes) -> Switched:
        """Make the goal of switching a label of each image (n,), from the logits (n,m) of the images as they are."""
        check_class_vector("labels", labels)
        index = labels.long().to(logits.device).unsqueeze(1)
        before = logits > 0
        return cls(labels, before.scatter(1, index, ~before.gather(1, index)))

    @property
    def classes(self) -> Classes:
        """(n,) The labels the goal speaks of."""
        return self.labels

    def select(self, images: Tensor) -> Switched:
        """Keep the goal for some of the images only (an index or a mask)."""
        return Switched(self.labels[images], self.wanted[images])

    def to(self, device: torch.device) -> Switched:
        """Move the goal to a device."""
        return Switched(self.labels.to(device), self.wanted.to(device))

    def margin(self, logits: Logits) -> PerImage:
        """(n,) By how much the label that is furthest from what is wanted misses it; below 0 once all are as wanted."""
        return self._find_missing(logits).amax(1)

    def loss(self, logits: Logits) -> PerImage:
        """(n,) The loss that an attack makes smaller: the logarithm of the sum of what each label's odds miss."""
        return self._find_missing(logits).logsumexp(1)

    def reached(self, logits: Logits) -> Flags:
        """(n,) Whether every label is as wanted."""
        return ((logits > 0) == self.wanted).all(1)

    def settled(self, clean_logits: Logits) -> Flags:
        """(n,) Whether there is nothing to do for an image, because every label is as wanted already."""
        return self.reached(clean_logits)

    def pose(self, logits: Logits) -> Float[Tensor, "n m+1"]:
        """Make of (n,m) logits those of m + 1 classes, for who knows one answer only.

        The first m are what each label misses; the last is 0. To have the last one as the target is the same goal:
        margin and loss are equal.
        """
        missing = self._find_missing(logits)
        return torch.cat([missing, torch.zeros_like(missing[:, :1])], dim=1)

    def _find_missing(self, logits: Logits) -> Logits:
        return torch.where(self.wanted, -logits, logits)


@final
@dataclass(frozen=True, eq=False)
class Kept:
    """Be given the true class, as before, while what is said of the image changes.

    For attacks on interpretations, which verify by themselves that something changed.

    Parameters
    ----------
    classes
        (n,) The true class of each image.
    """

    classes: Classes

    kind: ClassVar[str] = "kept"

    def __post_init__(self) -> None:
        check_class_vector("classes", self.classes)

    def select(self, images: Tensor) -> Kept:
        """Keep the goal for some of the images only (an index or a mask)."""
        return Kept(self.classes[images])

    def to(self, device: torch.device) -> Kept:
        """Move the goal to a device."""
        return Kept(self.classes.to(device))

    def margin(self, logits: Logits) -> PerImage:
        """(n,) How many logits are missing: below 0 as long as the class is kept."""
        true, strongest_other = _one_against_rest(logits, self.classes)
        return strongest_other - true

    def loss(self, logits: Logits) -> PerImage:
        """(n,) What brings the class back where it is made smaller: minus its log-odds."""
        return -_log_odds(logits, self.classes)

    def reached(self, logits: Logits) -> Flags:
        """(n,) Whether the strongest logit is the true class's."""
        return logits.argmax(1) == self.classes

    def settled(self, clean_logits: Logits) -> Flags:
        """(n,) Whether there is nothing to do for an image, because it has another class already."""
        return ~self.reached(clean_logits)


Goal = Untargeted | Targeted | Switched | Kept


def _one_against_rest(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    index = classes.long().unsqueeze(1)
    return logits.gather(1, index).squeeze(1), logits.scatter(1, index, float("-inf")).amax(1)


def _log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    index = classes.long().unsqueeze(1)
    return logits.gather(1, index).squeeze(1) - logits.scatter(1, index, float("-inf")).logsumexp(1)
