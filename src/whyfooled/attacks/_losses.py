"""What attacks inside a ball make smaller: cross-entropy or the difference of logits ratio."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from whyfooled.classifier.goals import Goal, Targeted
from whyfooled.errors import bad_parameter, warn
from whyfooled.types import Classes, Logits, PerImage

Loss = Literal["ce", "dlr"]
LOSSES: tuple[Loss, ...] = ("ce", "dlr")
AnyLoss = Loss | Literal["margin"]

_FEWEST_CLASSES, _FEWEST_CLASSES_AIMED = 3, 4


@dataclass(frozen=True)
class Objective:
    """A loss of a batch of images, which falls towards their goal.

    Parameters
    ----------
    loss
        ``"ce"`` is the cross-entropy, negative or not, as log-odds. The one grows with the other, so that their
        gradients have one direction and their order is one; but log-odds go on falling where a certain classifier's
        cross-entropy, and all of its gradient, is rounded to 0.
        ``"dlr"`` is the difference of logits ratio: what is missing to the goal, over the distance of the largest logit
        from the third or, with a class to reach, from the mean of the third and the fourth.
        ``"margin"`` is what is missing to the goal, in logits.
    goal
        What is to be reached.
    aims
        (n,) Classes to lead to, where any class but the true one will do.
    """

    loss: AnyLoss
    goal: Goal
    aims: Classes | None = None

    @property
    def aimed(self) -> bool:
        """Whether there is a class to reach."""
        return self.aims is not None or isinstance(self.goal, Targeted)

    def __call__(self, logits: Logits) -> PerImage:
        """Return (n,) the loss.

        Raises
        ------
        ParameterError
            If there are too few classes for it.
        """
        if self.loss == "dlr":
            return self._find_missing(logits) / _spread(logits, aimed=self.aimed)
        if self.loss == "margin":
            return self._find_missing(logits)
        return self.goal.loss(logits) if self.aims is None else Targeted(self.aims).loss(logits)

    def select(self, which: Tensor) -> Objective:
        """Keep the loss for some of the images only (an index or a mask)."""
        aims = None if self.aims is None else self.aims[which]
        return replace(self, goal=self.goal.select(which), aims=aims)

    def _find_missing(self, logits: Logits) -> PerImage:
        if self.aims is None:
            return self.goal.margin(logits)
        true, aim = (logits.gather(1, classes.long().unsqueeze(1)) for classes in (self.goal.classes, self.aims))
        return (true - aim)[:, 0]


def has_enough_classes(loss: AnyLoss, count: int, *, aimed: bool) -> bool:
    """Tell whether a loss is defined for so many classes."""
    return loss != "dlr" or count >= (_FEWEST_CLASSES_AIMED if aimed else _FEWEST_CLASSES)


PAPER_TARGETS = 9
"""How many classes AutoAttack aims at, on models of any number of classes."""


def rank_others(goal: Goal, logits: Logits, most: int) -> Tensor:
    """Return (n,k) the classes with the largest logits but the goal's own, in falling order: `most`, or all.

    Warns
    -----
    WhyfooledWarning
        If more are asked for than there are, and more than the paper's.
    """
    count = logits.shape[1] - 1
    if most > max(count, PAPER_TARGETS):
        warn(f"`targets` is {most}, and there are {count} other classes: all of them are aimed at.", stacklevel=3)
    others = logits.scatter(1, goal.classes.long().unsqueeze(1), float("-inf"))
    return others.argsort(dim=1, descending=True, stable=True)[:, : min(most, count)]


def _spread(logits: Logits, *, aimed: bool) -> PerImage:
    count = logits.shape[1]
    if not has_enough_classes("dlr", count, aimed=aimed):
        fewest, which = (
            (_FEWEST_CLASSES_AIMED, "the fourth largest logit, for a class to reach")
            if aimed
            else (_FEWEST_CLASSES, "the third largest logit")
        )
        rule = f"must be ce for a classifier of fewer than {fewest} classes, as dlr needs {which}"
        raise bad_parameter("loss", rule, f"dlr and {count} classes", "Choose loss=ce.")
    largest = logits.topk(_FEWEST_CLASSES_AIMED if aimed else _FEWEST_CLASSES, dim=1).values
    spread = largest[:, 0] - largest[:, 2:].mean(1)
    precision = torch.finfo(logits.dtype)
    return spread.clamp_min((precision.eps * largest.detach()[:, 0].abs()).clamp_min(precision.tiny))
