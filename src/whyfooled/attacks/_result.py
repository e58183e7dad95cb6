"""Running any attack, and not believing it: success is judged by a prediction of our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import Tensor

from whyfooled.attacks._attack import Attempt, Norm, attempt_open, find_norm
from whyfooled.attacks._problem import Box, Mask, Problem
from whyfooled.attacks.adapters import adapt
from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_attempted, check_images
from whyfooled.classifier.classifier import check_one_answer
from whyfooled.classifier.constancy import check_constancy
from whyfooled.classifier.goals import Goal, Untargeted
from whyfooled.classifier.workers import are_taken_apart, compute_logits
from whyfooled.errors import ParameterError
from whyfooled.tensors.balls import l0
from whyfooled.types import Classes, Counts, Flags, Images, Logits, PerImage, Progress, silent

Result = TypeVar("Result", bound="AttackResult")


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
    goal
        What was to be reached.
    norm
        What the changes are measured by where one number is said of them: ``"l0"``, ``"l1"``, ``"l2"`` or ``"linf"``;
        the attack's own norm, as far as it is known.
    searched_on
        What an attack of this package searched on, in a sentence: a copy of the model that computes the same more
        quickly, where it could be made; "" where no copy was thought of. Predictions, logits and success are always of
        the model as it is.
    stage
        (n,) The number of the stage that reached the goal, of an attack that has several (`AutoAttack`'s are 1 to 4); 0
        where none did. None for an attack that has no stages.
    """

    clean: Images
    adversarial: Images
    attempted: Images
    success: Flags
    clean_logits: Logits
    logits: Logits
    forwards: Counts
    backwards: Counts
    goal: Goal
    norm: Norm = "l2"
    searched_on: str = ""
    stage: Counts | None = None

    @classmethod
    def join(cls: type[Result], results: Sequence[Result]) -> Result:
        """Put results of several batches one after the other; their goals must be of one kind."""
        kinds = {type(result.goal) for result in results}
        if len(kinds) != 1:
            raise ParameterError(f"`results` must have goals of one kind; got {len(kinds)} kinds.")
        columns = {field.name: [getattr(result, field.name) for result in results] for field in fields(cls)}
        said = {name: _agree(columns.pop(name), otherwise) for name, otherwise in _SAID.items()}
        goals = [vars(goal).values() for goal in columns.pop("goal")]
        joined = {name: _join(values) for name, values in columns.items()}
        return cls(**joined, **said, goal=kinds.pop()(*map(torch.cat, zip(*goals, strict=True))))

    def select(self: Result, which: Tensor) -> Result:
        """Keep some of the images only (an index or a mask over the batch)."""
        return self._change(lambda tensor: tensor[which], lambda part: part.select(which))

    def to(self: Result, device: torch.device) -> Result:
        """Move everything to a device."""
        return self._change(lambda tensor: tensor.to(device), lambda part: part.to(device))

    def _change(self: Result, tensors: Callable[[Tensor], Tensor], parts: Callable[[Any], Any]) -> Result:
        """Change every tensor, and every goal or result among the fields; leave what is no image's."""
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = tensors(value)
            elif isinstance(value, Goal | AttackResult):
                changed[field.name] = parts(value)
        return replace(self, **changed)

    @staticmethod
    @one_thread()
    def from_images(
        classifier: Classifier, clean: Images, adversarial: Images, goal: Goal | None = None
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
        check_images(clean)
        check_attempted(clean, adversarial)
        clean_logits = compute_logits(classifier, clean)
        check_constancy(classifier, clean, clean_logits, apart=are_taken_apart(clean))
        if goal is None:
            check_one_answer(classifier)
            goal = Untargeted(clean_logits.argmax(1))
        nothing = torch.zeros(len(clean), dtype=torch.int64, device=clean.device)
        return _verify(classifier, clean, clean_logits, goal, Attempt(adversarial, nothing, nothing))

    def only_where(self: Result, too: Flags) -> Result:
        """Count as successes only those of which something else holds, (n,), too; the others come back unchanged."""
        success = self.success & too
        return replace(
            self, success=success, adversarial=torch.where(success.view(-1, 1, 1, 1), self.attempted, self.clean)
        )

    def __len__(self) -> int:
        return len(self.clean)

    def __repr__(self) -> str:
        reached, n = int(self.success.sum()), len(self.success)
        sizes = getattr(self, self.norm)[self.success]
        median = f", median {self.norm} {float(sizes.median()):.4g}" if reached else ""
        return f"{type(self).__name__}({reached} of {n} reached their goal{median})"

    @property
    def delta(self) -> Images:
        """(n,c,h,w) What was added: `adversarial` minus `clean`."""
        return self.adversarial - self.clean

    @property
    def predictions(self) -> Classes:
        """(n,) The class predicted on `attempted`; of several labels, the one with the largest logit."""
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
        """Return one row for each image: goal, outcome, predictions, norms and passes.

        ``goal_class`` is the true class of an untargeted goal, the target of a targeted one, and the label that is to
        be switched of several. ``outcome`` is ``"fooled"`` (where an attack keeps the class: whoever looks at its
        map), ``"failed"`` or ``"already wrong"``. Norms are missing where the attack failed, and so is ``stage``, which
        is there for an attack that has several.
        """
        norms = {"l0": self.l0, "l1": self.l1, "l2": self.l2, "linf": self.linf}
        columns = {
            "goal_class": self.goal.classes,
            "success": self.success,
            "clean_prediction": self.clean_logits.argmax(1),
            "prediction": self.predictions,
            **norms,
            "forwards": self.forwards,
            "backwards": self.backwards,
        }
        frame = pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})
        # A failed attack has no norm, and a 0 would bring every mean down.
        frame = frame.astype({"l0": "Int64"})
        if self.stage is not None:
            frame["stage"] = pd.array(self.stage.cpu().numpy(), dtype="Int64")
            frame.loc[~frame["success"], "stage"] = pd.NA
        frame.loc[~frame["success"], list(norms)] = pd.NA
        settled = self.goal.settled(self.clean_logits)
        already = settled & (self.success | ~self.goal.reached(self.clean_logits))
        outcomes = zip(already.tolist(), self.success.tolist(), strict=True)
        frame.insert(0, "goal", self.goal.kind)
        frame.insert(2, "outcome", ["already wrong" if a else "fooled" if s else "failed" for a, s in outcomes])
        return frame


_SAID: dict[str, Any] = {"norm": "l2", "searched_on": ""}
"""What is said of a whole result, and what is said where several results differ in it."""


def _agree(values: list[Any], otherwise: Any) -> Any:
    return values[0] if len(set(values)) == 1 else otherwise


def _join(values: list[Any]) -> Any:
    """Put one field of several results together: tensors and results in a row; what is no image's is the first's."""
    first = values[0]
    if any(value is None for value in values):
        return None
    if isinstance(first, Tensor):
        return torch.cat(values)
    return type(first).join(values) if isinstance(first, AttackResult) else first


@one_thread()
def run_attack(
    attack: Any,
    classifier: Classifier,
    images: Images,
    goal: Goal,
    *,
    mask: Mask | None = None,
    box: Box = (0.0, 1.0),
    progress: Progress = silent,
) -> AttackResult:
    """Run an attack and verify what it returns.

    For an untargeted goal, images that are taken for a wrong class already are successes of norm 0 and cost nothing.

    Parameters
    ----------
    attack
        One of `whyfooled.attacks`, or anything that `whyfooled.attacks.adapt` takes: an attack of Foolbox, adv-lib,
        torchattacks or ART, or a callable ``(model, x, y) -> x_adv`` or ``(classifier, images, goal) -> images``.
    classifier
        The classifier to fool.
    images
        (n,c,h,w), values in [0, 1].
    goal
        `Untargeted` or `Targeted`, with a class for each image; `Switched` for a model that gives several labels.
    mask
        (h,w) or (n,1,h,w) Where the attack may act; pixels outside stay bit for bit what they were. For attacks of this
        package.
    box
        The least and the largest value that a changed pixel may have. For attacks of this package.
    progress
        Called as the attack proceeds, if it is one of ours.

    Returns
    -------
    AttackResult
        On the device of the images.

    Raises
    ------
    ParameterError
        If the goal has another number of classes than there are images, one out of range, or a target that is the class
        already given; if the mask or the box cannot be used.
    ImageError
        If images, given or returned, are not in the box, not finite, or of different shapes.
    ModelError
        If logits or gradients are not finite; the images are named. If the model fails, or takes an image for another
        class each time, or beside other images.

    Warns
    -----
    WhyfooledWarning
        If the model gives an image other logits each time, or beside other images; it takes 2 or 3 forward passes of
        the first image to see that.
    """
    problem = Problem.of(classifier, images, goal, mask, box)
    clean_logits, attempt = attempt_open(adapt(attack), problem, progress)
    result = _verify(classifier, problem.images, clean_logits, problem.asked, attempt)
    return replace(result, norm=find_norm(attack)).to(images.device)


def _verify(classifier: Classifier, clean: Tensor, clean_logits: Tensor, goal: Goal, attempt: Attempt) -> AttackResult:
    attempted = attempt.images.detach()
    logits = compute_logits(classifier, attempted)
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
        goal=goal,
        searched_on=attempt.searched_on,
        stage=attempt.stage,
    )
