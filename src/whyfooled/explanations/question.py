"""Of a model that gives several labels at once, the one label that an explanation is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from whyfooled.attacks import AttackResult
from whyfooled.classifier import Classifier, Goal, Switched
from whyfooled.classifier.outputs import to_two_logits
from whyfooled.drawing.words import percent
from whyfooled.errors import bad_parameter
from whyfooled.running.provenance import Stages
from whyfooled.types import Images

_MOST = 5
"""How many labels are named. [ours]"""


@final
@dataclass(frozen=True, eq=False)
class Question:
    """One label of several, asked about in one image.

    Parameters
    ----------
    classifier
        The model with all of its labels.
    label
        The label that is asked about.
    logits
        (1,m) The logits of all labels for the clean image.
    others_stay
        Whether an attack is to leave the other labels as they are, and not only to switch this one.
    """

    classifier: Classifier
    label: int
    logits: Tensor
    others_stay: bool

    @property
    def asked(self) -> Classifier:
        """The classifier of two classes: that the label is off, and that it is on."""
        return self.classifier.ask(self.label)

    @property
    def goal(self) -> Switched:
        """To switch the label, and leave the others."""
        return Switched.of(self.logits, torch.tensor([self.label], device=self.logits.device))

    def narrow(self, result: AttackResult, goal: Goal) -> AttackResult:
        """Return the result of an attack on all labels as one on the label alone; it succeeded if the others stayed."""
        before, after = self._answer(result.clean_logits), self._answer(result.logits)
        return replace(result, clean_logits=before, logits=after, goal=goal)

    def _answer(self, logits: Tensor) -> Tensor:
        """Return (1,2) the logits of the label's absence and of the label, of (1,m) those of all labels."""
        return to_two_logits(logits, self.label)

    @property
    def aim(self) -> str:
        """What an attack is to reach, in words."""
        name, way = self.classifier.class_name(self.label), "off" if self.logits[0, self.label] > 0 else "on"
        return f"{name} was to be switched {way}, and the other labels to stay as they were"

    def write_notes(self, logits: Tensor) -> Iterator[str]:
        """Say what became of the other labels, by (1,m) their logits for the adversarial image."""
        name = self.classifier.class_name
        before, after = (values[0].sigmoid().tolist() for values in (self.logits, logits))
        others = [index for index in self.logits[0].argsort(descending=True).tolist() if index != self.label]
        yield (
            f"The model gives {len(before)} labels at once, each on or off by itself. This is about one of them, "
            f"{name(self.label)}, and its two classes are that it is on and that it is not."
        )
        changed = [index for index in others if (before[index] > 0.5) != (after[index] > 0.5)]
        switched = _list_some([f"{name(i)} ({'on' if after[i] > 0.5 else 'off'})" for i in changed])
        on = [index for index in others if before[index] > 0.5]
        listed = _list_some([f"{name(i)} ({percent(before[i])}, then {percent(after[i])})" for i in on])
        yield (
            f"The perturbation switches other labels too: {switched}."
            if changed
            else f"The other {len(others)} labels stay as they were."
        ) + (f" On in the clean image: {listed}." if on else "")


def _list_some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"{', '.join(names[:_MOST])}{more}"


def choose_question(
    classifier: Classifier, clean: Images, label: str | int | None, target: str | int | None, stages: Stages
) -> Question | None:
    """Choose the label that an explanation is about: the one that is named, or the strongest; None without labels.

    A classifier that `Classifier.ask` made to tell one of several is about that one, whatever happens to the others.

    Raises
    ------
    ParameterError
        If there is no such label, or a target is given where a label is to be switched.
    """
    whole = classifier.whole
    if not whole.several_labels:
        return None
    check_no_target(classifier, target)
    stages.count_too(whole)
    with stages.stage("labels"):
        logits = whole.logits(clean)
    if classifier.label is not None:
        return Question(whole, classifier.label, logits, others_stay=False)
    strongest = int(logits.argmax())
    chosen = strongest if label is None else classifier.class_index(label, logits.shape[1], "label")
    return Question(whole, chosen, logits, others_stay=True)


def check_no_target(classifier: Classifier, target: str | int | None) -> None:
    """Raise `ParameterError` for a target where a label is to be switched."""
    if classifier.several_labels and target is not None:
        rule = "is for a model with one answer: a label is switched, on or off"
        raise bad_parameter("target", rule, repr(target), "Name the label to switch with label (--label).")
